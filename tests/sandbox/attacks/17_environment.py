# threat: looks for secrets in the environment, its own and other processes'
# expect: ok, error
# weak: secret
import os

texts = [repr(dict(os.environ))]
for process in ("self", os.getppid(), TRAINER):
    try:
        texts.append(open(f"/proc/{process}/environ").read())
    except OSError as refusal:
        print(type(refusal).__name__)
print([text[text.index(PREFIX) :][:40] for text in texts if PREFIX in text])
