# threat: ignores every signal that asks it to stop
# expect: timeout, error
# weak: time
import signal

for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError) as refusal:
        print(type(refusal).__name__)
while True:
    pass
