"""The page of `fastpose app`, on Gradio (extra `app`), which only `page` and `serve` import."""
