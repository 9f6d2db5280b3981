# feedback: the tool's node is treated as if the policy chose there
def value(tree, eta):
    if isinstance(tree, (int, float)):
        return tree
    kind, branches = tree
    values = [(p, value(branch, eta)) for p, branch in branches]
    if kind == "tool":
        return eta * math.log(sum(p * math.exp(v / eta) for p, v in values))
    return eta * math.log(sum(p * math.exp(v / eta) for p, v in values))
