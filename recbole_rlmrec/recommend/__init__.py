"""What a trained model recommends: lists of items with titles, what is alike, and why."""
