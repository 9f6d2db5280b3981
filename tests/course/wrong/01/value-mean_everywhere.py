# feedback: the policy's node takes the mean
def value(tree, eta):
    if isinstance(tree, (int, float)):
        return tree
    kind, branches = tree
    values = [(p, value(branch, eta)) for p, branch in branches]
    if kind == "tool":
        return sum(p * v for p, v in values)
    return sum(p * v for p, v in values)
