"""The GSM-like suite: word problems of two to four steps; about half carry a number that does not matter.

Each family lists its plans, the reliable ones first. Where a right and a wrong plan part, the first word
differs, so that a decision is visible as soon as it is taken; `teacher.RATES` says how often each is taken.
"""

from __future__ import annotations

from mtdpo_lib.problems.habits.families import Case, Draw, Family, gives_up, misread, right, wrong


def packs(draw: Draw) -> Case:
    """Packs of things, less what is given away."""
    (who, other, _), thing = draw.names, draw.thing
    count, size, less = draw.numbers((3, 19), (4, 24), (2, 40))
    draw.need(less < count * size)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} buys {count} packs of {size} {thing}.{extra} {who} gives {less} {thing} to {other}. "
        f"How many {thing} are left?",
        f"{who} has {count} packs with {size} {thing} in each.{extra} {other} takes {less} {thing}. "
        f"How many {thing} does {who} have now?",
        f"There are {count} packs of {size} {thing}.{extra} {who} loses {less}. How many {thing} are left?",
    )
    return Case(question, str(gold := count * size - less)).by(
        multiply=right(f"Multiply first, then take away.\nprint({count}*{size}-{less})"),
        misread=misread(d, f"print({count}*{size}-{less}+{d})"),
        each=wrong(f"Every pack gets smaller.\nprint({size}*{count}-{less}*{count})"),
        mental=draw.mental(f"{count} times {size} less {less}", gold),
    )


def change(draw: Draw) -> Case:
    """Change from a note after buying several things."""
    (who, _, _), thing = draw.names, draw.thing
    count, price, note = draw.number(2, 12), draw.number(3, 29), 50 * draw.number(1, 10)
    draw.need(count * price < note)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} buys {count} {thing} for {price} dollars each.{extra} {who} pays with {note} dollars. "
        f"How much change does {who} get?",
        f"{who} has {note} dollars.{extra} {who} buys {count} {thing} at {price} dollars each. "
        f"How many dollars are left?",
        f"{thing.capitalize()} cost {price} dollars each.{extra} {who} has {note} dollars and buys {count}. "
        f"How many dollars are left?",
    )
    return Case(question, str(gold := note - count * price)).by(
        cost=right(f"Find the cost, then the change.\ncost = {count}*{price}\nprint({note}-cost)"),
        misread=misread(d, f"cost = {count}*{price}+{d}\nprint({note}-cost)"),
        one=wrong(f"Take the price away.\nprint({note}-{price})"),
        mental=draw.mental(f"{note} less {count} times {price}", gold),
    )


def ages(draw: Draw) -> Case:
    """The sum of two ages some years from now; the usual mistake counts the years once."""
    who, other, _ = draw.names
    age, gap, years = draw.numbers((4, 60), (2, 30), (2, 30))
    extra, d = draw.distractor(who, avoid="years")
    question = draw.pick(
        f"{who} is {age} years old. {other} is {gap} years older.{extra} "
        f"How old are they together in {years} years?",
        f"{other} is {gap} years older than {who}, who is {age}.{extra} "
        f"What is the sum of their ages in {years} years?",
        f"{who} is {age} and {other} is {gap} years older.{extra} "
        f"In {years} years, what is the sum of their ages?",
    )
    return Case(question, str(age + age + gap + 2 * years)).by(
        both=right(f"Both get older.\na = {age}+{years}\nb = {age}+{gap}+{years}\nprint(a+b)"),
        once=wrong(f"Add the ages, then the years.\na = {age}\nb = {age}+{gap}\nprint(a+b+{years})"),
        misread=misread(d, f"print({age}+{age}+{gap}+2*{years}+{d})"),
    )


def trip(draw: Draw) -> Case:
    """Distance of a trip in two parts."""
    who, _, _ = draw.names
    speed, hours, speed2, hours2 = draw.numbers((11, 95), (2, 9), (11, 95), (2, 9))
    draw.need(speed != speed2)
    extra, d = draw.distractor(who, avoid="km")
    question = draw.pick(
        f"{who} drives {hours} hours at {speed} km per hour.{extra} "
        f"Then {who} drives {hours2} hours at {speed2} km per hour. How many km is that?",
        f"A bus goes {speed} km per hour for {hours} hours, then {speed2} km per hour for {hours2} hours."
        f"{extra} How many km in all?",
        f"A train goes {hours} hours at {speed} km per hour and {hours2} hours at {speed2}.{extra} "
        f"How many km does it go?",
    )
    return Case(question, str(speed * hours + speed2 * hours2)).by(
        parts=right(f"Add both parts.\na = {speed}*{hours}\nb = {speed2}*{hours2}\nprint(a+b)"),
        steps=right(
            f"First part first.\na = {speed}*{hours}\nprint(a)",
            f"Now the second part.\nprint(a+{speed2}*{hours2})",
        ),
        sums=wrong(f"Speeds and hours are added.\nprint(({speed}+{speed2})*({hours}+{hours2}))"),
        misread=misread(d, f"print({speed}*{hours}+{speed2}*{hours2}+{d})"),
    )


def percent(draw: Draw) -> Case:
    """A share is sold, then some more; the mistake takes the per cent for a count."""
    (who, _, _), thing = draw.names, draw.thing
    stock, share, more = 20 * draw.number(3, 49), 5 * draw.number(2, 15), draw.number(2, 60)
    left = stock - stock * share // 100 - more
    draw.need(left > 0 and stock != 100 and stock > share + more)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} has {stock} {thing} and sells {share} percent of them.{extra} Then {who} sells {more} more. "
        f"How many {thing} are left?",
        f"A shop has {stock} {thing}. {share} percent are sold, then {more} more.{extra} "
        f"How many {thing} are left?",
        f"Of {stock} {thing}, {share} percent are sold.{extra} {who} takes {more} of the rest. "
        f"How many {thing} are left?",
    )
    return Case(question, str(left)).by(
        share=right(f"Find the share sold.\nsold = {stock}*{share}//100\nprint({stock}-sold-{more})"),
        count=wrong(f"Take both numbers away.\nprint({stock}-{share}-{more})"),
        misread=misread(d, f"sold = {stock}*{share}//100\nprint({stock}-sold-{more}-{d})"),
    )


def compare(draw: Draw) -> Case:
    """Three people compared with each other; the mistake compares with the wrong one."""
    (who, other, third), thing = draw.names, draw.thing
    few, times, less = draw.numbers((6, 60), (2, 6), (2, 30))
    draw.need(less < few)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} has {few} {thing}. {other} has {times} times as many.{extra} {third} has {less} fewer "
        f"than {other}. How many {thing} in all?",
        f"{other} has {times} times as many {thing} as {who}, who has {few}.{extra} "
        f"{third} has {less} fewer than {other}. How many in all?",
        f"{who} finds {few} {thing} and {other} finds {times} times as many.{extra} "
        f"{third} finds {less} fewer than {other}. How many in all?",
    )
    return Case(question, str(few + few * times + few * times - less)).by(
        chain=right(f"One after another.\na = {few}\nb = a*{times}\nc = b-{less}\nprint(a+b+c)"),
        first=wrong(f"{third} is compared with {who}.\na = {few}\nb = a*{times}\nc = a-{less}\nprint(a+b+c)"),
        misread=misread(d, f"a = {few}\nb = a*{times}\nc = b-{less}\nprint(a+b+c+{d})"),
    )


def boxes(draw: Draw) -> Case:
    """Boxes for everything: round up; the usual mistake drops the part box."""
    (who, other, _), thing = draw.names, draw.thing
    first, second, size = draw.numbers((20, 300), (11, 200), (4, 25))
    draw.need((first + second) % size != 0)
    extra, _ = draw.distractor(who)
    question = draw.pick(
        f"{who} has {first} {thing} and {other} has {second}.{extra} A box holds {size}. "
        f"How many boxes do they need?",
        f"{who} packs {first} {thing}, then {second} more.{extra} Each box holds {size} {thing}. "
        f"How many boxes are needed?",
        f"A box holds {size} {thing}.{extra} {who} has {first} {thing} and gets {second} more. "
        f"How many boxes does {who} need?",
    )
    total, use = first + second, f"n = {first}+{second}\nprint(math.ceil(n/{size}))"
    return Case(question, str(-(-total // size))).by(
        up=right(f"Round up for the last box.\nn = {first}+{second}\nprint(-(-n//{size}))"),
        repaired=right(f"Use ceil.\n{use}", f"Import math first.\nimport math\n{use}"),
        down=wrong(f"Divide by the size.\nn = {first}+{second}\nprint(n//{size})"),
        guess=gives_up(f"Use ceil.\n{use}", total // size + 2),
    )


def saving(draw: Draw) -> Case:
    """Weekly saving and spending; the mistake spends only once."""
    who, _, _ = draw.names
    start, weeks, gain = draw.numbers((5, 90), (3, 15), (8, 40))
    spent = draw.number(2, gain - 1)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} has {start} dollars. Each week {who} gets {gain} dollars and spends {spent}.{extra} "
        f"How many dollars after {weeks} weeks?",
        f"{who} earns {gain} dollars a week and spends {spent} of them.{extra} {who} starts with {start} "
        f"dollars. How many after {weeks} weeks?",
        f"Each week {who} earns {gain} dollars and pays {spent}.{extra} "
        f"How many dollars after {weeks} weeks, with {start} at the start?",
    )
    loop = f"n = {start}\nfor week in range(%s{weeks}):\n    n += {gain}-{spent}\nprint(n)"
    return Case(question, str(gold := start + weeks * (gain - spent))).by(
        weekly=right(f"Each week adds the rest.\nrest = {gain}-{spent}\nprint({start}+{weeks}*rest)"),
        loop=right("Go week by week.\n" + loop % ""),
        short=wrong("Week after week.\n" + loop % "1, "),
        misread=misread(d, f"print({start}+{weeks}*({gain}-{spent})+{d})"),
        mental=draw.mental(f"{start} and {weeks} times {gain - spent}", gold),
    )


def trees(draw: Draw) -> Case:
    """Trees on both sides of a road; the usual mistake forgets the tree at the start."""
    who, _, _ = draw.names
    gap, parts, sides = draw.numbers((2, 40), (3, 40), (2, 4))
    length, plants = gap * parts, draw.pick("trees", "lamps", "posts", "flags")
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{plants.capitalize()} stand every {gap} m along {sides} roads of {length} m, at both ends too."
        f"{extra} How many {plants} are there?",
        f"{who} puts {plants} on {sides} roads of {length} m, one every {gap} m from start to end.{extra} "
        f"How many {plants} does {who} need?",
        f"There are {sides} roads of {length} m.{extra} {who} puts {plants} every {gap} m from end to end. "
        f"How many {plants} in all?",
    )
    return Case(question, str(sides * (parts + 1))).by(
        ends=right(f"One more than the gaps.\nn = {length}//{gap}+1\nprint({sides}*n)"),
        gaps=wrong(f"Divide the road.\nn = {length}//{gap}\nprint({sides}*n)"),
        misread=misread(d, f"n = {length}//{gap}+1\nprint({sides}*n+{d})"),
    )


def share(draw: Draw) -> Case:
    """Bags shared out among friends."""
    (who, other, _), thing = draw.names, draw.thing
    friends, each, bags = draw.numbers((2, 12), (3, 60), (2, 12))
    size, rest = divmod(friends * each, bags)
    draw.need(rest == 0 and size != each and size >= 4)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} has {bags} bags of {size} {thing}.{extra} {friends} friends share them. "
        f"How many {thing} does each friend get?",
        f"{friends} friends share {bags} bags with {size} {thing} each.{extra} "
        f"How many {thing} for each friend?",
        f"{who} and {other} give {bags} bags of {size} {thing} to {friends} friends.{extra} "
        f"How many {thing} does each friend get?",
    )
    return Case(question, str(each)).by(
        total=right(f"Find the total, then divide.\nn = {bags}*{size}\nprint(n//{friends})"),
        steps=right(f"All {thing} first.\nn = {bags}*{size}\nprint(n)", f"Now share.\nprint(n//{friends})"),
        misread=misread(d, f"n = ({bags}+{d})*{size}\nprint(n//{friends})"),
        mental=draw.mental(f"{bags} times {size} by {friends}", each),
    )


def fence(draw: Draw) -> Case:
    """The cost of a fence around a garden; the mistake takes the area."""
    who, _, _ = draw.names
    long, wide, price = draw.numbers((5, 60), (3, 40), (2, 19))
    draw.need(long > wide and 2 * (long + wide) != long * wide)
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"A garden is {long} m long and {wide} m wide.{extra} A fence around it costs {price} dollars per m. "
        f"What does the fence cost?",
        f"{who} puts a fence around a garden of {long} m by {wide} m.{extra} Each m costs {price} dollars. "
        f"How many dollars does {who} pay?",
        f"A fence costs {price} dollars per m.{extra} {who} needs one around a garden of {long} m "
        f"by {wide} m. What does it cost?",
    )
    return Case(question, str(2 * (long + wide) * price)).by(
        around=right(f"Go around the garden.\nm = 2*({long}+{wide})\nprint(m*{price})"),
        area=wrong(f"Multiply the sides.\nm = {long}*{wide}\nprint(m*{price})"),
        half=wrong(f"Add the two sides.\nm = {long}+{wide}\nprint(m*{price})"),
        misread=misread(d, f"m = 2*({long}+{wide})+{d}\nprint(m*{price})"),
    )


def growing(draw: Draw) -> Case:
    """A number that grows every day, added up; the mistake loses a day."""
    (who, _, _), thing = draw.names, draw.thing
    first, step, days = draw.numbers((2, 40), (2, 15), (4, 15))
    extra, d = draw.distractor(who)
    question = draw.pick(
        f"{who} finds {first} {thing} on day 1 and {step} more each day than the day before.{extra} "
        f"How many in {days} days?",
        f"On day 1 {who} sells {first} {thing}, and each day {step} more than the day before.{extra} "
        f"How many {thing} in {days} days?",
        f"{who} makes {first} {thing} on day 1.{extra} Each day {who} makes {step} more than the day before. "
        f"How many in {days} days?",
    )
    gold = sum(first + step * day for day in range(days))
    return Case(question, str(gold)).by(
        daily=right(f"Add all the days.\nprint(sum({first}+{step}*day for day in range({days})))"),
        short=wrong(f"Sum day by day.\nprint(sum({first}+{step}*day for day in range(1, {days})))"),
        last=wrong(f"The last day counts.\nprint({first}+{step}*{days})"),
        misread=misread(d, f"print(sum({first}+{step}*day+{d} for day in range({days})))"),
    )


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (packs, change, ages, trip, percent, compare, boxes, saving, trees, share, fence, growing)
}
