# threat: overflows the parser and the compiler
# expect: ok, error, killed, memory
# weak: harmless: CPython's parser counts how deep it is
for source in (
    "(" * 100_000,
    "[" * 5_000 + "]" * 5_000,
    "-" * 50_000 + "1",
    "x" + ".y" * 50_000,
    "1" + "+1" * 50_000,
):
    try:
        eval(source)
    except Exception as refusal:
        print(type(refusal).__name__)
