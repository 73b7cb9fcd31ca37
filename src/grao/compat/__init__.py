"""What is taken from inside torch, transformers and peft: one file per dependency, one test per assumption."""
