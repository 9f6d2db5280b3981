# threat: reads a file of the host that everybody may read
# expect: error
# weak: secret
print(open("/etc/passwd").read()[:80])
