"""What the demo's profiles do, by strength, beside the base model and a system prompt: measured and shown."""
