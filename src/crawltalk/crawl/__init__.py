"""The crawl: raw web pages as WARC. An embedded sample with known ground truth, or the user's own files."""
