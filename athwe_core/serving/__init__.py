"""What a trained run gives to others: recommendations in files, vectors, models for other programs."""
