"""From a file's bytes to the text that people read in it. What has to be parsed is parsed in a process of its own."""
