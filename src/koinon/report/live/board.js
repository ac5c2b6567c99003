// What the coordinator's status says, in words, tables and curves.

const ROUNDS = 200; // of a table
const CLIENTS = 200;
const SHOWN_ROUNDS = 8; // of those that came to nothing for one reason
const TROUBLE = ["failed", "refused", "late", "asked"];
const OVER = new Set(["finished", "cancelled", "failed"]);
const REFUSED = "an update that is not finite or too large to add"; // the words of the reports
const REMEDY = "Lower the learning rate, scale the inputs, or put Clip into the channel.";
const SINCE = "Rounds done are those of the whole run; times, speed, bytes and the last error are since the coordinator was started.";
const PURPOSES = { train: "training", evaluate: "evaluation" };

const alphabet = new Intl.Collator("en", { numeric: true }); // site-2 before site-10
const byName = (parties) => parties.toSorted((a, b) => alphabet.compare(a.name, b.name));
const ago = (value, elapsed) => (typeof value === "number" ? `${ticking(value + elapsed)} ago` : "not yet");
const reasonText = (value) => (Array.isArray(value) ? value.join(", ") : value);

// Nobody's figures stand in the page's own words, so a name of a client cannot pass for one of them.
function board(control) {
  const overview = facts();
  const runs = make("div");
  const parties = table("Everybody who has enrolled", ["participant", "identifier", "key", "last heard"], [1], true);
  const none = make("p", {}, "No run yet.");
  const root = make("div", {}, overview.root, none, runs, make("h2", {}, "Participants"), parties.root);

  function show(status, elapsed) {
    const [all, known] = [status.runs ?? [], status.clients ?? []];
    overview.show([
      ["runs", String(all.length)],
      ["participants", String(known.filter((party) => !party.revoked).length)],
      ["invitations open", status.invitations_open],
      ["up for", ticking(status.seconds + elapsed)],
      ["version", status.version],
    ]);
    none.hidden = all.length > 0;
    keep(runs, all.map((run) => ({ run, elapsed })), ({ run }) => run.run, ({ run }) => runView(run, control));
    parties.show(byName(known).map((party) => partyRow(party, elapsed, control)));
  }
  return { root, show };
}

function partyRow(party, elapsed, control) {
  const heard = party.revoked ? "revoked" : ago(party.seconds_since_heard, elapsed);
  return {
    key: party.client,
    kind: party.revoked ? "revoked" : "",
    cells: [party.name, party.client, party.kind, heard],
    action: {
      text: "Revoke…", label: `Revoke ${party.name}`, hidden: party.revoked === true,
      act: () => control.revoke(party),
    },
  };
}

function runView(first, control) {
  const [name, state, lead, what] = [make("h2"), make("span", { class: "state" }), make("p", { class: "lead" }), make("p", { class: "quiet small" })];
  const [whole, open] = [meter(), meter()];
  const buttons = runButtons(control);
  const digest = make("code");
  const ending = make("p", { class: "small" }, "Digest of the final model: ", digest);
  const promise = make("ul", { class: "quiet small" });
  const curves = make("div", { class: "curves" });
  const clients = clientsView();
  const rounds = roundsView();
  const id = `run-${words(first.run)}`;
  name.id = id;
  const root = make("section", { class: "run", "aria-labelledby": id },
    make("div", { class: "row" }, name, state), lead, whole.root, open.root, buttons.root, what,
    ending, promise, curves, clients.root, rounds.root);
  let drawn = "";

  function show({ run, elapsed }) {
    const history = run.history ?? [];
    write(name, run.name);
    write(state, run.state);
    state.dataset.kind = words(run.state);
    write(lead, OVER.has(run.state) ? run.stopped ?? "" : run.waits_for && `Waits for: ${run.waits_for}`);
    lead.hidden = lead.textContent === "";
    whole.show(run.round, run.rounds, run.rounds ? `Round ${run.round} of ${run.rounds}` : count(run.round ?? 0, "round"));
    showOpen(open, run.open, elapsed);
    buttons.show(run);
    write(what, [run.algorithm, `run ${run.run}`, run.app && `app ${run.app.slice(0, 12)}`].filter(Boolean).join(" · "));
    write(digest, run.digest);
    ending.hidden = !run.digest;
    promise.hidden = !run.privacy;
    promise.replaceChildren(...(run.privacy ?? []).map((line, i) => make("li", {}, words(i ? line : `Privacy: ${line}`))));
    clients.show(run, elapsed);
    const last = history.at(-1);
    const mark = `${history.length} ${last?.round}`;
    if (mark === drawn) return;
    drawn = mark;
    const names = figureNames(history);
    keep(curves, metricsOf(names).map((metric) => ({ metric, names, history })), ({ metric }) => metric, ({ metric }) => curve(metric));
    rounds.show(history, names);
  }
  return { root, show };
}

function meter() {
  const label = make("span");
  const bar = make("progress", { "aria-hidden": "true" });
  return {
    root: make("div", { class: "meter" }, label, bar),
    show(value, most, text) {
      write(label, text);
      bar.hidden = !(most > 0 && value >= 0);
      if (!bar.hidden) [bar.max, bar.value] = [most, Math.min(value, most)];
    },
  };
}

function showOpen(view, open, elapsed) {
  view.root.hidden = !open;
  if (!open) return;
  const parts = [
    `Round ${open.round}, ${PURPOSES[open.purpose] ?? open.purpose}: ${open.arrived} of ${open.asked} arrived`,
    open.attempt > 1 ? `attempt ${open.attempt}` : "",
    typeof open.seconds_left !== "number" ? "" :
      open.seconds_left > elapsed ? `${ticking(open.seconds_left - elapsed)} left` : "its time is over",
  ];
  view.show(open.arrived, open.asked, parts.filter(Boolean).join(", "));
}

function runButtons(control) {
  const hold = make("button", { type: "button" });
  const cancel = make("button", { type: "button", class: "grave" }, "Cancel…");
  const root = make("div", { class: "row buttons", role: "group" }, hold, cancel);
  let run;
  hold.addEventListener("click", () => control.change(run, run.state === "paused" ? "resume" : "pause"));
  cancel.addEventListener("click", () => control.cancel(run));
  return {
    root,
    show(now) {
      run = now;
      root.hidden = OVER.has(run.state);
      root.setAttribute("aria-label", `Run ${words(run.name)}`);
      write(hold, run.state === "paused" ? "Resume" : "Pause");
    },
  };
}

// Large cohorts are cut to those in trouble first; the words typed into the field choose among all.
function clientsView() {
  const head = ["client", "state", "last heard", "examples", "rounds done", "last round", "upload speed", "uploaded", "downloaded", "last error"];
  const rows = table("Clients", head, [1, 9]);
  const field = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const search = make("label", { class: "row" }, "Find a client", field);
  const since = make("p", { class: "quiet small" }, SINCE);
  const root = make("div", {}, make("h3", {}, "Clients"), search, rows.root, since);
  let last;

  function show(run, elapsed) {
    last = [run, elapsed];
    const all = run.clients ?? [];
    search.hidden = all.length <= 20;
    const wanted = field.value.trim().toLowerCase();
    const found = all.filter((client) => String(client.name).toLowerCase().includes(wanted));
    const rank = (client) => (TROUBLE.includes(client.standing) ? TROUBLE.indexOf(client.standing) : TROUBLE.length);
    const kept = found.length <= CLIENTS ? found : found.toSorted((a, b) => rank(a) - rank(b)).slice(0, CLIENTS);
    const said = kept.length < all.length ? `${kept.length} of ${count(all.length, "client")}` : count(all.length, "client");
    rows.show(byName(kept).map((client) => clientRow(client, elapsed)), said);
    root.hidden = all.length === 0;
  }
  field.addEventListener("input", () => show(...last));
  return { root, show };
}

function clientRow(client, elapsed) {
  const speed = client.upload_bytes_per_second;
  return {
    key: client.client,
    kind: client.standing,
    cells: [
      client.name, client.standing, ago(client.seconds_since_heard, elapsed), client.train_examples ?? "–",
      client.rounds_done ?? "–", seconds(client.last_round_seconds), typeof speed === "number" ? `${bytes(speed)}/s` : "–",
      bytes(client.bytes_received), bytes(client.bytes_sent), client.last_error ?? "–",
    ],
  };
}

function leftOut(history) {
  const rows = [];
  for (const record of history.toReversed())
    for (const what of ["refused", "lost"])
      for (const [client, reason] of Object.entries(record[what] ?? {}))
        rows.push({ key: `${record.round} ${what} ${client}`, kind: what, cells: [record.round, client, what, reasonText(reason)] });
  return rows;
}

// What came to nothing: the same reason is said once, with the rounds it holds for.
function withoutResult(history) {
  const found = new Map();
  for (const record of history)
    for (const [stage, why] of Object.entries(record.void ?? {})) {
      const key = `${stage} ${why}`;
      if (!found.has(key)) found.set(key, { stage, why, rounds: [] });
      found.get(key).rounds.push(record.round);
    }
  return [...found].map(([key, { stage, why, rounds }]) => {
    const shown = rounds.length > SHOWN_ROUNDS ? `${rounds.slice(0, SHOWN_ROUNDS).join(", ")} and ${rounds.length - SHOWN_ROUNDS} more` : rounds.join(", ");
    return { key, kind: "void", cells: [shown, PURPOSES[stage] ?? stage, why] };
  });
}

// Those left out of a round with the reasons, and every round's figures; newest first.
function roundsView() {
  const out = table("Left out of a round", ["round", "client", "what", "reason"], [1, 2, 3]);
  const title = make("h3", {}, "Left out of a round");
  const remedy = make("p", {}, `A client is refused in a round in which it sends ${REFUSED}. ${REMEDY}`);
  const empty = table("Without a result", ["rounds", "of what", "reason"], [1, 2]);
  const nothing = make("div", {}, make("h3", {}, "Without a result"), empty.root);
  const everyRound = make("div", { class: "tall" });
  let last = [[], []];
  const figures = folded("Every round's figures", everyRound, () => fillRounds(everyRound, ...last));
  const root = make("div", {}, nothing, title, remedy, out.root, figures.root);
  out.root.classList.add("tall", "by-round");
  return {
    root,
    show(history, names) {
      last = [history, names];
      const rows = leftOut(history);
      const most = rows.slice(0, ROUNDS);
      title.hidden = rows.length === 0;
      remedy.hidden = !rows.some((row) => row.kind === "refused");
      out.show(most, rows.length > most.length ? `The last ${most.length}` : count(rows.length, "update is missing", "updates are missing"));
      const voids = withoutResult(history);
      nothing.hidden = voids.length === 0;
      empty.show(voids, count(voids.length, "reason"));
      root.hidden = history.length === 0;
      figures.refresh();
    },
  };
}

function fillRounds(parent, history, names) {
  const most = history.slice(-ROUNDS).toReversed();
  const said = most.length < history.length ? `The last ${most.length} rounds` : "Every round";
  const rows = most.map((record) => ({
    key: String(record.round),
    cells: [record.round, ...names.map((name) => number(record[name])), record.cohort, seconds(record.seconds)],
  }));
  keep(parent, [{ rows, said }], () => names.join("\n"), () => {
    const view = table("Every round", ["round", ...names.map((name) => words(spelt(name))), "clients asked", "time"]);
    return { root: view.root, show: (now) => view.show(now.rows, now.said) };
  });
}
