"""The page of `tenfold serve`: erasing in the browser, the reports of trainings, and what networks cost."""
