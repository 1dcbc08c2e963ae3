"""What a model is for. One file per Hugging Face task name: `Options` and `open_`."""
