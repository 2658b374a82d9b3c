"""A profile as other tools' documents: one file per format. Each refuses what it cannot carry, by name."""
