"""The HTTP service: an API in OpenAI's form and a web page, in front of one or several engines."""
