"""From a model's name to checked files: bundled directories, the Hub, bundles, what others publish."""
