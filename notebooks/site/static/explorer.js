// The trajectory explorer: what to see is chosen in lists, a line opens what it names. All text of a model becomes text nodes
// and never HTML, so nothing in it can act.
"use strict";

(() => {
  const data = window.mtdpoExplorer;
  const scored = new Set(data.scored);
  const place = document.getElementById("explorer");

  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const distinct = (rows, field) => [...new Set(rows.map((row) => row[field]))];
  const verdict = (row) => (row.correct ? "right" : "wrong");
  const partner = (row) => {
    const other = { chosen: "rejected", rejected: "chosen" }[row.fate];
    return data.trajectories.find(
      (one) => other && one.fate === other && one.problem_id === row.problem_id && one.iteration === row.iteration
    );
  };

  // What can be chosen: a name, its words, and which rows each choice keeps.
  const all = ["all", () => true];
  const choices = {
    trajectories: {
      iteration: [all, ...distinct(data.trajectories, "iteration").map((one) => [`${one}`, (row) => row.iteration === one])],
      verdict: [all, ...["right", "wrong"].map((one) => [one, (row) => verdict(row) === one])],
      "sampled from": [all, ...distinct(data.trajectories, "policy").map((one) => [one, (row) => row.policy === one])],
      "what became of it": [all, ...distinct(data.trajectories, "fate").sort().map((one) => [one, (row) => row.fate === one])],
      "learnt from by": [
        all,
        ["M-DPO, M-KTO, DPO, KTO (pairs)", (row) => ["chosen", "rejected"].includes(row.fate)],
        ["RAFT (right ones)", (row) => row.raft],
        ["none", (row) => !row.raft && !["chosen", "rejected"].includes(row.fate)],
      ],
    },
  };
  choices.pairs = { iteration: choices.trajectories.iteration, "chosen sampled from": choices.trajectories["sampled from"] };
  choices.answers = {
    verdicts: [
      all,
      ["wrong at first, right in the end", (rows) => !rows[0].correct && rows.at(-1).correct],
      ["right at first, wrong in the end", (rows) => rows[0].correct && !rows.at(-1).correct],
      ["always right", (rows) => rows.every((row) => row.correct)],
      ["never right", (rows) => rows.every((row) => !row.correct)],
    ],
  };

  // The lines of each list: its words, and the trajectories that it opens.
  const question = (row) => data.problems[row.problem_id][0];
  const answers = Object.values(Object.groupBy(data.answers, (row) => row.problem_id));
  const lines = {
    trajectories: () => data.trajectories.map((row) => ({
      row, words: `${row.iteration} · ${row.policy} · ${verdict(row)} · ${row.fate} · ${question(row)}`, opens: [row],
    })),
    pairs: () => data.trajectories.filter((row) => row.fate === "chosen" && partner(row)).map((row) => ({
      row, words: `${row.iteration} · ${row.policy} · ${question(row)}`, opens: [row, partner(row)],
    })),
    answers: () => answers.map((rows) => ({
      row: rows, words: `${rows.map(verdict).join(" → ")} · ${question(rows[0])}`, opens: rows,
    })),
  };
  const titles = {
    trajectories: "samples of the training prompts",
    pairs: "pairs, right against wrong",
    answers: "answers of one problem across iterations",
  };

  const select = (label, options, changed) => {
    const box = make("select");
    box.append(...options.map((words, number) => make("option", { value: number, textContent: words })));
    box.addEventListener("change", changed);
    return { box, label: make("label", {}, label, box) };
  };

  const written = (row, masked) => {
    const text = make("div", { className: "text" });
    for (const [role, count, words] of row.segments) {
      const inside = masked && scored.has(role) ? make("ins", { textContent: words }) : words;
      const span = make("span", { className: role });
      if (masked) span.append(make("b", { textContent: `[${role} ${count}] ` }));
      span.append(inside);
      text.append(span);
    }
    return text;
  };

  const article = (row, masked) => {
    const gold = data.problems[row.problem_id][1];
    const facts = [
      `answer ${row.answer ?? "none"}, gold ${gold}`, `ended by ${row.stop}`,
      `tool calls ${row.tool_calls}, errors ${row.tool_errors}`,
    ];
    if (row.fate) facts.push(row.fate, row.raft ? "learnt from by RAFT" : "");
    const parts = { seen: 0, unseen: 0 };
    for (const [role, count] of row.segments) parts[scored.has(role) ? "seen" : "unseen"] += count;
    facts.push(`the loss sees ${parts.seen} of ${parts.seen + parts.unseen} tokens`);
    return make(
      "article", {},
      make("h3", { textContent: `${verdict(row)}: ${row.policy}` }),
      make("p", { textContent: facts.filter(Boolean).join("; ") + "." }),
      written(row, masked)
    );
  };

  const kinds = Object.keys(titles).filter((kind) => lines[kind]().length);
  const kind = select("show", kinds.map((one) => titles[one]), () => fill());
  const mask = make("input", { type: "checkbox", checked: true });
  const head = make("div", { className: "choices" });
  const list = make("ul", { className: "list" });
  const count = make("p");
  count.setAttribute("aria-live", "polite");
  const shown = make("div", { className: "shown" });
  shown.setAttribute("aria-live", "polite");
  let filters = [], current = null;

  const open = (line, button) => {
    current = line;
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    if (button) button.setAttribute("aria-current", "true");
    shown.replaceChildren(...(line ? line.opens.map((row) => article(row, mask.checked)) : []));
  };

  const narrow = () => {
    const kept = lines[kinds[kind.box.value]]().filter((line) => filters.every(([box, tests]) => tests[box.value](line.row)));
    list.replaceChildren(...kept.map((line) => {
      const button = make("button", { type: "button", textContent: line.words });
      button.addEventListener("click", () => open(line, button));
      return make("li", {}, button);
    }));
    count.textContent = `${kept.length} in the list`;
    open(kept[0] ?? null, list.querySelector("button"));
  };

  const fill = () => {
    filters = [];
    const labels = Object.entries(choices[kinds[kind.box.value]]).map(([name, options]) => {
      const made = select(name, options.map(([words]) => words), narrow);
      filters.push([made.box, options.map(([, test]) => test)]);
      return made.label;
    });
    head.replaceChildren(kind.label, ...labels, make("label", { className: "across" }, mask, "mask: who wrote what"));
    narrow();
  };

  mask.addEventListener("change", () => open(current, list.querySelector("[aria-current]")));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!step || !next) return;
    event.preventDefault();
    next.focus();
    next.click();
  });

  place.replaceChildren(head, count, list, shown);
  fill();
})();
