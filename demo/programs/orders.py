"""Written in 2023. Needs match (3.10 and later) and cgi (gone since 3.13)."""
import cgi
import sys


def price(order: dict) -> int:
    match order:
        case {"book": title, "copies": int(copies)}:
            return 20 * copies
        case {"voucher": int(value)}:
            return -value
        case _:
            return 0


kind, options = cgi.parse_header("text/order; charset=utf-8")
orders = [{"book": "Make", "copies": 2}, {"voucher": 5}]
print(f"orders: {sum(map(price, orders))} for {len(orders)} lines in"
      f" {options['charset']}, Python {sys.version.split()[0]}")
