"""What a study makes and stores: classifiers, oracles, scores, shifted images, tuned learning rates."""
