"""From a request to a trained run: config, folder, resume, extension, processes."""
