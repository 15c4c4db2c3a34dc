"""Small Python functions, with names left open in braces."""

from __future__ import annotations

FUNCTIONS = (
    "def {add}({a}, {b}):\n    return {a} + {b}\n",
    "def {subtract}({a}, {b}):\n    return {a} - {b}\n",
    "def {multiply}({a}, {b}):\n    return {a} * {b}\n",
    "def {divide}({a}, {b}):\n    if {b} == 0:\n        return None\n    return {a} / {b}\n",
    "def {is_even}({a}):\n    return {a} % 2 == 0\n",
    "def {is_odd}({a}):\n    return {a} % 2 == 1\n",
    "def {largest}({a}, {b}):\n    if {a} > {b}:\n        return {a}\n    return {b}\n",
    "def {smallest}({a}, {b}):\n    if {a} < {b}:\n        return {a}\n    return {b}\n",
    "def {total}({items}):\n    result = 0\n    for {a} in {items}:\n        result += {a}\n    return result\n",
    "def {count_all}({items}):\n    count = 0\n    for {a} in {items}:\n        count += 1\n    return count\n",
    "def {factorial}({a}):\n    result = 1\n    for i in range(1, {a} + 1):\n        result *= i\n    return result\n",
    'def {greet}({a}):\n    print("Hello, " + {a})\n',
    "def {double}({a}):\n    return {a} * 2\n",
    "def {square}({a}):\n    return {a} * {a}\n",
    "def {positives}({items}):\n    return [{a} for {a} in {items} if {a} > 0]\n",
    "def {contains}({items}, {a}):\n    for {b} in {items}:\n        if {b} == {a}:\n            return True\n    return False\n",
    "def {average}({items}):\n    if not {items}:\n        return 0\n    return sum({items}) / len({items})\n",
    "class {Class}:\n    def __init__(self, {a}, {b}):\n        self.{a} = {a}\n        self.{b} = {b}\n",
)
