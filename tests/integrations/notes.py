"""What the adapters' searches look through, and what they have to find."""

NOTES = [
    "git reset --soft HEAD~1 takes the last commit back and keeps its changes.",
    "Bread needs flour, water, salt and yeast.",
    "SELECT name FROM users WHERE age > 30 ORDER BY name",
    "The cat sleeps on the warm window sill.",
]
QUESTION = "How do I undo my last commit?"
ANSWER = NOTES[0]
# More tokens than gte-mini reads.
LONG = "word " * 1000
