"use strict";

(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function themeNow() {
    return root.dataset.theme || (dark.matches ? "dark" : "light");
  }

  function startTheme() {
    const button = document.getElementById("theme");
    const name = document.getElementById("theme-name");
    const show = () => { name.textContent = themeNow() === "dark" ? "Light" : "Dark"; };
    button.addEventListener("click", () => {
      root.dataset.theme = themeNow() === "dark" ? "light" : "dark";
      show();
    });
    dark.addEventListener("change", show);
    button.hidden = false;
    show();
  }

  function startTabs(list) {
    const tabs = [...list.querySelectorAll("[role=tab]")];
    const select = (chosen) => {
      for (const tab of tabs) {
        const isChosen = tab === chosen;
        tab.setAttribute("aria-selected", String(isChosen));
        tab.tabIndex = isChosen ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
      }
    };
    tabs.forEach((tab, at) => {
      tab.addEventListener("click", () => select(tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step === undefined) return;
        const next = tabs[(at + step + tabs.length) % tabs.length];
        select(next);
        next.focus();
        event.preventDefault();
      });
    });
    list.hidden = false;
    select(tabs[0]);
  }

  // Sorts by a column: numbers by their value and largest first, texts by their letters; what is missing comes last.
  function startSorting(table) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const valueOf = (row, at) => {
      const cell = row.cells[at];
      return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
    };
    const isMissing = (value) => value === "" || value === "–";

    function sort(at) {
      const isNumeric = [...body.rows].some((row) => typeof valueOf(row, at) === "number");
      const before = heads[at].getAttribute("aria-sort");
      const first = isNumeric ? "descending" : "ascending";
      const order = before === first ? { ascending: "descending", descending: "ascending" }[first] : first;
      const sign = order === "ascending" ? 1 : -1;
      const compare = (a, b) => {
        if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
        if (typeof a === "number" && typeof b === "number") return sign * (a - b);
        return sign * String(a).localeCompare(String(b), "en", { numeric: true });
      };
      body.append(...[...body.rows].sort((a, b) => compare(valueOf(a, at), valueOf(b, at))));
      heads.forEach((head, each) => {
        if (each === at) head.setAttribute("aria-sort", order);
        else head.removeAttribute("aria-sort");
      });
    }

    heads.forEach((head, at) => {
      if (!head.textContent.trim()) return;
      const button = element("button", head.textContent, "sort");
      button.type = "button";
      button.addEventListener("click", () => sort(at));
      head.replaceChildren(button);
    });
  }

  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // not allowed, or not there: a page from a plain address
      return false;
    }
  }

  function startCopy(button) {
    const code = button.parentElement.querySelector("code");
    const name = button.textContent;
    button.addEventListener("click", async () => {
      const text = code.textContent;
      const isDone = await copied(text);
      if (!isDone) getSelection().selectAllChildren(code);
      button.textContent = isDone ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = name; }, 2000);
    });
    button.hidden = false;
  }

  // A row of cards that is wider than the page: buttons that walk along it, and a shade at an edge where there is more.
  function startWalk(strip) {
    const walk = strip.parentElement.querySelector(".walk");
    const [back, on] = walk.querySelectorAll("button");
    const show = () => {
      const rest = strip.scrollWidth - strip.clientWidth - strip.scrollLeft;
      walk.hidden = strip.scrollWidth <= strip.clientWidth + 1;
      back.disabled = strip.scrollLeft < 1;
      on.disabled = rest < 1;
      strip.classList.toggle("more-before", !back.disabled && !walk.hidden);
      strip.classList.toggle("more-after", !on.disabled && !walk.hidden);
    };
    const step = (sign) => strip.scrollBy({ left: 0.8 * sign * strip.clientWidth });
    back.addEventListener("click", () => step(-1));
    on.addEventListener("click", () => step(1));
    strip.addEventListener("scroll", show, { passive: true });
    new ResizeObserver(show).observe(strip);
    show();
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function bar(value, largest, className) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("class", "bar");
    svg.setAttribute("viewBox", "0 0 100 8");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const rect = document.createElementNS(space, "rect");
    rect.setAttribute("class", value < 0 ? "hindered" : className);
    rect.setAttribute("width", String(100 * Math.min(1, Math.abs(value) / (largest || 1))));
    rect.setAttribute("height", "8");
    svg.append(rect);
    return svg;
  }

  const number = (value, digits) => value.toFixed(digits).replace("-", "−");
  const ranked = (rank) => rank.toLocaleString("en", { maximumFractionDigits: 1 });

  function measures() {
    const list = element("dl", undefined, "measures");
    return {
      list,
      say(name, text) {
        list.append(element("dt", name), element("dd", text, "alone"));
      },
      add(name, drawn, text) {
        const held = element("dd");
        held.append(drawn);
        list.append(element("dt", name), held, element("dd", text, "value"));
      },
      show(name, value, largest, digits, className) {
        this.add(name, bar(value, largest, className), number(value, digits));
      },
    };
  }

  function section(body, heading, fill) {
    const found = measures();
    fill(found);
    if (found.list.childElementCount) body.append(element("h4", heading), found.list);
  }

  function scoreParts(found, parts, colours) {
    const largest = Math.max(...Object.values(parts).map(Math.abs));
    for (const [modality, value] of Object.entries(parts)) found.show(modality, value, largest, 2, colours[modality]);
  }

  // Bars from the even share, to which four equal weights add nothing to be seen.
  function departures(found, weights) {
    const even = 1 / weights.length;
    const largest = Math.max(...weights.map((weight) => Math.abs(weight - even)));
    found.say("even share", number(even, 3));
    weights.forEach((weight, expert) => {
      const drawn = bar(weight - even, Math.max(largest, 0.1 * even), "m-time");
      found.add(`expert ${expert + 1}`, drawn, number(weight, 3));
    });
  }

  function gatesTable(gates, at) {
    const modalities = Object.keys(gates);
    const table = element("table");
    const head = element("tr");
    for (const name of ["", ...modalities]) head.append(element("th", name));
    table.append(head);
    gates[modalities[0]][at].forEach((_, expert) => {
      const row = element("tr");
      row.append(element("th", `expert ${expert + 1}`));
      for (const modality of modalities) row.append(element("td", number(gates[modality][at][expert], 3)));
      table.append(row);
    });
    return table;
  }

  function atPosition(body, why, label, position, colours) {
    const at = position - why.first_position;
    if (at < 0) return;
    section(body, `${label}: influence${Object.keys(why.attention).length ? " and attention" : ""}`, (found) => {
      const entry = why.influence.find((each) => each.position === position);
      const subject = why.subject.is_target ? "the true next item" : "the first recommendation";
      if (entry) {
        const change = `${entry.score_change > 0 ? "+" : ""}${number(entry.score_change, 2)}`;
        const isSame = entry.rank_without === why.rank;
        const rank = isSame ? `keeps rank ${ranked(why.rank)}` : `has rank ${ranked(entry.rank_without)} instead of ${ranked(why.rank)}`;
        found.say("without it", `${subject} ${rank}; its score changes by ${change}`);
      }
      for (const [modality, layers] of Object.entries(why.attention)) {
        const mean = layers.reduce((sum, layer) => sum + layer[at], 0) / layers.length;
        found.show(`attention, ${modality}`, mean, 1, 3, colours[modality]);
      }
    });
    if (why.temporal_gates) {
      section(body, `${label}: temporal gates at this item`, (found) => departures(found, why.temporal_gates[at]));
    }
    if (why.interactive_gates) {
      body.append(element("h4", `${label}: interactive gates at this item`), gatesTable(why.interactive_gates, at));
    }
  }

  function recommended(body, study, short, colours, itemId) {
    for (const [run, rows] of Object.entries(study.recommendations)) {
      const row = rows.find((each) => each.item_id === itemId);
      if (!row) continue;
      section(body, `${short[run]}: recommended`, (found) => {
        found.say("rank", ranked(row.rank));
        found.say("score", number(row.score, 2));
        scoreParts(found, row.by_modality, colours);
      });
    }
  }

  function asTarget(body, study, short, colours, itemId) {
    if (!study.target || study.target.item_id !== itemId) return;
    section(body, "The true next item", (found) => {
      for (const [run, rank] of Object.entries(study.target.ranks)) found.say(short[run], `rank ${ranked(rank)}`);
    });
    for (const [run, why] of Object.entries(study.why)) {
      const listed = (study.recommendations[run] || []).some((row) => row.item_id === itemId);
      if (why.subject.item_id !== itemId || listed) continue;
      section(body, `${short[run]}: its score`, (found) => {
        found.say("score", number(why.score, 2));
        scoreParts(found, why.by_modality, colours);
      });
    }
  }

  function facts(study, itemId, position) {
    const places = [study.history[position], study.target, ...study.history, ...Object.values(study.recommendations).flat()];
    return places.find((item) => item && item.item_id === itemId);
  }

  function startDetail({ cases, short, colours }) {
    const dialog = document.getElementById("detail");
    const body = document.getElementById("detail-body");

    function open(button) {
      const study = cases[Number(button.dataset.case)];
      const itemId = button.dataset.item;
      const given = button.dataset.position;
      const again = study.history.filter((item) => item.item_id === itemId).map((item) => item.position);
      const positions = given === undefined ? again : [Number(given)];
      const item = facts(study, itemId, positions[0]);
      document.getElementById("detail-title").textContent = item.title || itemId;
      const date = positions.length ? study.history[positions[0]].date : item.date;
      const parts = [`id ${itemId}`, item.category, date].filter(Boolean);
      document.getElementById("detail-facts").textContent = parts.join(" · ");
      const picture = document.querySelector(`.item[data-item="${CSS.escape(itemId)}"] .thumb`);
      document.getElementById("detail-picture").replaceChildren(...(picture ? [picture.cloneNode(true)] : []));
      body.replaceChildren();
      asTarget(body, study, short, colours, itemId);
      recommended(body, study, short, colours, itemId);
      for (const position of positions) {
        body.append(element("h3", `Item ${position + 1} of the history`));
        for (const [run, why] of Object.entries(study.why)) atPosition(body, why, short[run], position, colours);
      }
      dialog.showModal();
      body.scrollTop = 0;
    }

    for (const button of document.querySelectorAll("button.item")) button.addEventListener("click", () => open(button));
    document.getElementById("detail-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  startTheme();
  document.querySelectorAll("[role=tablist]").forEach(startTabs);
  document.addEventListener("athwe:shown", (event) => event.target.querySelectorAll("[role=tablist]").forEach(startTabs));
  document.querySelectorAll("table.sortable").forEach(startSorting);
  document.querySelectorAll(".copy").forEach(startCopy);
  document.querySelectorAll(".timeline").forEach(startWalk);
  const data = document.getElementById("data");
  if (data && document.getElementById("detail")) startDetail(JSON.parse(data.textContent));
})();
