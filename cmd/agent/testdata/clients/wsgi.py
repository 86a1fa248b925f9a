"""The smallest application for gunicorn: /missing is not found."""


def app(environ, start_response):
    found = environ["PATH_INFO"] != "/missing"
    start_response("200 OK" if found else "404 Not Found", [("Content-Type", "text/plain")])
    return [b"hello\n"]
