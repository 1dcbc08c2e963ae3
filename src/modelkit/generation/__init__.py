"""Token ids in, text out: choosing tokens, keys and values kept between steps, chat templates, summaries."""
