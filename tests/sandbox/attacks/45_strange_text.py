# threat: prints what breaks decoders and line protocols
# expect: ok
# weak: harmless: it is only text where texts are JSON
print("\ud800 \x00 \r\n \u2028 \x1b[2J")
