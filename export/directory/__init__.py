"""The model directory as the export writes it: layout, card, the output as a whole."""
