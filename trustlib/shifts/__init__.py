"""Distribution shifts: corruptions, swapped styles, the recolouring attack; by name, and how each is made."""
