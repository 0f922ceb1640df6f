"""Notes, kept in PostgreSQL: GET / lists them, POST / adds one."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

DATABASE = f"host={os.environ['DATABASE']} user=postgres dbname=postgres connect_timeout=10"


def query(sql, *values):
    """Runs one statement in a transaction of its own and returns its rows."""
    connection = psycopg2.connect(DATABASE)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


class Notes(BaseHTTPRequestHandler):
    def do_GET(self):
        rows = query("SELECT text FROM notes ORDER BY id")
        self.answer({"client": self.headers.get("X-Real-IP"), "notes": [text for (text,) in rows]})

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query("INSERT INTO notes (text) VALUES (%s)", text)
        self.answer({"added": text})

    def answer(self, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


query("CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)")
ThreadingHTTPServer(("", 8000), Notes).serve_forever()
