"""Models of the Hub: what a model needs of its repository, the download, and what is said when it fails."""
