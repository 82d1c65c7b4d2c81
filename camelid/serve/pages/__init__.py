"""Pages: HTML from the server, made lively by own modules of JavaScript; nothing comes from anywhere else."""
