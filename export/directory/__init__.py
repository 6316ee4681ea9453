"""The model directory as the export writes it: layout, card, progress."""
