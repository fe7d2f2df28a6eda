"""What the commands of cli.py are made of: options, inputs, outputs and the progress bar."""
