"""From WARC to clean documents: `data` in `stage` is the stage, `extract.extract` the main text of one page."""
