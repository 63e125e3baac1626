"""From a request to a trained run: config, folder, resume, extension, the processes, the end."""
