"""Several tasks tuned together: prompts that share a part, a universal start for new tasks, which tasks help which."""
