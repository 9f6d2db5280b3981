# feedback: the logarithm is not multiplied by eta
def value(tree, eta):
    if isinstance(tree, (int, float)):
        return tree
    kind, branches = tree
    values = [(p, value(branch, eta)) for p, branch in branches]
    if kind == "tool":
        return sum(p * v for p, v in values)
    return math.log(sum(p * math.exp(v / eta) for p, v in values))
