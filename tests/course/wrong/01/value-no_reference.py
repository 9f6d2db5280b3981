# feedback: the reference is left out
def value(tree, eta):
    if isinstance(tree, (int, float)):
        return tree
    kind, branches = tree
    values = [(p, value(branch, eta)) for p, branch in branches]
    if kind == "tool":
        return sum(p * v for p, v in values)
    return eta * math.log(sum(math.exp(v / eta) for p, v in values))
