
(() => {
  const DAY = 86400;
  const UNITS = { minutes: 60, hours: 3600, days: DAY, months: 30.4375 * DAY };
  const facts = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const results = at("results"), events = at("events"), found = at("found"), search = at("search");

  // items: {item_id, title, category, picture, initials, gap}; gap = seconds since the item before, 0 for the first
  const state = { user: null, items: [], first: facts.latest, target: null, explained: null };

  function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function button(className, text, label, act) {
    const made = make("button", className, text);
    made.type = "button";
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }

  function initials(item) {
    const made = make("span", "thumb initials", item.initials);
    made.setAttribute("aria-hidden", "true");
    return made;
  }

  function thumb(item) {
    if (!item.picture) return initials(item);
    const made = make("img", "thumb");
    Object.assign(made, { src: item.picture, alt: "", width: 112, height: 112, loading: "lazy" });
    made.dataset.initials = item.initials;
    return made;
  }

  function words(item, more) {
    const made = make("span");
    made.append(make("bdi", "title", item.title), make("span", "sub", more ?? item.category));
    return made;
  }

  const say = (text) => { at("status").textContent = text; };

  function complain(text) {
    at("problem").textContent = text || "";
    at("problem").hidden = !text;
  }

  async function ask(path, options) {
    const response = await fetch(path, options);
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    throw new Error(told.detail?.map((each) => each.message).join(". ") || `The service answered ${response.status}.`);
  }

  // Acts at once; what is called meanwhile is done once more at the end.
  function latest(act) {
    let isActing = false, again = false;
    return async () => {
      again = true;
      if (isActing) return;
      isActing = true;
      while (again) {
        again = false;
        try {
          await act();
        } catch (error) {
          complain(error.message);
        }
      }
      isActing = false;
    };
  }

  const get = async (path, values) => (await ask(`${path}?${new URLSearchParams(values)}`)).json();

  // ---- times

  function times() {
    let now = state.first;
    return state.items.map((item, place) => (now += place ? item.gap : 0));
  }

  const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

  function unitOf(gap) {
    const fitting = Object.entries(UNITS).filter(([, seconds]) => gap >= seconds);
    return fitting.length ? fitting.at(-1)[0] : "minutes";
  }

  // ---- what changes the history

  function changed(text) {
    state.explained = null;
    draw();
    if (text) say(text);
    recommend();
  }

  function add(item) {
    if (state.items.length >= facts.mostItems) {
      complain(`A history has at most ${facts.mostItems} items here.`);
      return;
    }
    state.items.push({ ...item, gap: state.items.length ? DAY : 0 });
    changed(`Added ${item.title}.`);
  }

  function remove(place) {
    const [gone] = state.items.splice(place, 1);
    const after = state.items[place];
    if (after) after.gap = place ? after.gap + gone.gap : 0; // the others keep their times
    if (!place && after) state.first = gone.next;
    changed(`Removed ${gone.title}.`);
  }

  function move(from, to) {
    if (to < 0 || to >= state.items.length || to === from) return;
    const gaps = state.items.map((item) => item.gap);
    const [moved] = state.items.splice(from, 1);
    state.items.splice(to, 0, moved);
    state.items.forEach((item, place) => { item.gap = gaps[place]; }); // times stay, items change places
    changed(`${moved.title} is item ${to + 1} of ${state.items.length} now.`);
  }

  function take(user, history, target) {
    followed = false;
    state.user = user;
    state.items = history.map((item, place) => ({ ...item, gap: place ? item.timestamp - history[place - 1].timestamp : 0 }));
    state.first = history.length ? history[0].timestamp : facts.latest;
    const last = history.at(-1);
    state.target = target && last ? { ...target, gap: target.timestamp - last.timestamp } : null;
    at("user").value = user ?? "";
  }

  async function loadUser(id) {
    try {
      const told = await get("try/user", id === null ? {} : { id });
      take(told.user, told.history, told.target);
      changed(`History of user ${told.user}: ${told.history.length} items.`);
    } catch (error) {
      complain(error.message);
    }
  }

  // ---- drawing the history

  function draw() {
    const held = document.activeElement?.dataset?.key;
    const when = times();
    state.items.forEach((item, place) => { item.next = when[place + 1]; });
    events.replaceChildren(...state.items.map((item, place) => line(item, place, when[place])));
    at("start-field").hidden = !state.items.length;
    at("start").value = day(state.first);
    const next = at("next");
    next.hidden = !state.target;
    next.replaceChildren();
    if (state.target) {
      const text = make("span");
      text.append(make("span", "note", `What user ${state.user ?? ""} chose next`), make("bdi", "title", state.target.title));
      next.append(text, button("small", "Forget", "Forget what came next", () => {
        state.target = null;
        changed("What came next is forgotten.");
      }));
    }
    if (held) {
      const again = document.querySelector(`[data-key="${CSS.escape(held)}"]:not(:disabled)`);
      (again ?? events.querySelector("button.grip:last-of-type") ?? search).focus();
    }
  }

  function line(item, place, seconds) {
    const made = make("li");
    if (place) made.append(gapLine(item, place));
    const row = make("div", "event");
    const grip = button("grip", "⠿", `Move ${item.title}: drag, or use the arrow keys`, () => {});
    grip.addEventListener("pointerdown", (event) => startDrag(event, grip, place));
    grip.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      focusAfter(`grip-${place + step}`, () => move(place, place + step));
    });
    grip.dataset.key = `grip-${place}`;
    const moves = make("span", "moves");
    const acts = [
      ["up", "↑", `Move ${item.title} earlier`, place === 0, () => focusAfter(`up-${place - 1}`, () => move(place, place - 1))],
      ["down", "↓", `Move ${item.title} later`, place === state.items.length - 1,
        () => focusAfter(`down-${place + 1}`, () => move(place, place + 1))],
      ["remove", "✕", `Remove ${item.title}`, false, () => focusAfter(`remove-${Math.max(0, place - 1)}`, () => remove(place))],
    ];
    for (const [key, sign, label, isOff, act] of acts) {
      const each = button("", sign, label, act);
      each.dataset.key = `${key}-${place}`;
      each.disabled = isOff;
      moves.append(each);
    }
    row.append(grip, thumb(item), words(item, day(seconds)), moves);
    made.append(row);
    return made;
  }

  function focusAfter(key, act) {
    act();
    const wanted = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    const other = wanted?.disabled ? wanted.parentElement.querySelector("button:not(:disabled)") : wanted;
    (other ?? search).focus();
  }

  function gapLine(item, place) {
    const made = make("div", "gap-line");
    const amount = make("input"), unit = make("select");
    const shown = unitOf(item.gap);
    Object.assign(amount, { type: "number", min: "0", step: "any", value: String(Number((item.gap / UNITS[shown]).toFixed(1))) });
    amount.setAttribute("aria-label", `Time between items ${place} and ${place + 1}`);
    unit.setAttribute("aria-label", `Unit of the time between items ${place} and ${place + 1}`);
    unit.append(...Object.keys(UNITS).map((name) => new Option(name, name, name === shown, name === shown)));
    const change = () => {
      const value = Number(amount.value);
      if (amount.value === "" || !Number.isFinite(value) || value < 0) return;
      item.gap = Math.round(value * UNITS[unit.value]);
      const when = times();
      events.querySelectorAll(".event .sub").forEach((sub, each) => { sub.textContent = day(when[each]); });
      state.items.forEach((each, number) => { each.next = when[number + 1]; });
      recommend();
    };
    amount.addEventListener("input", change);
    unit.addEventListener("change", change);
    amount.dataset.key = `gap-${place}`;
    unit.dataset.key = `unit-${place}`;
    made.append(amount, unit, "later");
    return made;
  }

  // ---- dragging

  function startDrag(down, grip, from) {
    if (down.button) return;
    down.preventDefault();
    grip.focus();
    grip.setPointerCapture(down.pointerId);
    const lines = [...events.children];
    const middles = lines.map((each) => {
      const box = each.lastElementChild.getBoundingClientRect();
      return box.top + box.height / 2;
    });
    let to = from;
    const moving = (event) => {
      lines[from].classList.add("lifted");
      lines[from].lastElementChild.style.transform = `translateY(${event.clientY - down.clientY}px)`;
      to = middles.filter((middle, place) => place !== from && middle < event.clientY).length;
      lines.forEach((each, place) => {
        each.classList.toggle("drop-before", place === to && to < from);
        each.classList.toggle("drop-after", place === to && to > from);
      });
    };
    const stop = (event) => {
      for (const [name, act] of [["pointermove", moving], ["pointerup", stop], ["pointercancel", stop]]) {
        grip.removeEventListener(name, act);
      }
      if (event.type === "pointerup" && to !== from) focusAfter(`grip-${to}`, () => move(from, to));
      else draw();
    };
    grip.addEventListener("pointermove", moving);
    grip.addEventListener("pointerup", stop);
    grip.addEventListener("pointercancel", stop);
  }

  // ---- searching

  const lookUp = latest(async () => showFound((await get("try/items", { q: search.value })).items));

  function showFound(items) {
    const list = found.querySelector("ul");
    list.replaceChildren(...items.map((item) => {
      const line = make("li");
      const one = button("", undefined, undefined, () => add(item));
      one.append(thumb(item), words(item));
      line.append(one);
      return line;
    }));
    if (!items.length) {
      const line = make("li");
      line.append(make("p", "", "No item has all these words."));
      list.append(line);
    }
    openFound(true);
    if (search.value) say(items.length === 1 ? "1 item found." : `${items.length === 20 ? "20 or more" : items.length} items found.`);
  }

  function openFound(isOpen) {
    found.hidden = !isOpen;
    search.setAttribute("aria-expanded", String(isOpen));
  }

  function walkFound(event) {
    const all = [...found.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && !found.hidden) {
      search.focus(); // while the list is open, so that this does not open it again
      openFound(false);
    } else if (step && all.length && !found.hidden) {
      const next = all.indexOf(document.activeElement) + step;
      (all[next] ?? search).focus();
      event.preventDefault();
    }
  }

  search.addEventListener("input", lookUp);
  search.addEventListener("focus", () => { if (found.hidden) lookUp(); });
  search.parentElement.addEventListener("keydown", walkFound);
  document.addEventListener("pointerdown", (event) => {
    if (!search.parentElement.contains(event.target)) openFound(false);
  });
  document.addEventListener("focusin", (event) => {
    if (!search.parentElement.contains(event.target)) openFound(false);
  });

  // ---- recommending

  function address() {
    if (!state.items.length) return " ";
    const when = times();
    const items = state.items.map((item, place) => [item.item_id, when[place]]);
    const target = state.target && [state.target.item_id, when.at(-1) + state.target.gap];
    return `#${encodeURIComponent(JSON.stringify({ user: state.user, items, target }))}`;
  }

  const recommend = latest(async () => {
    complain("");
    history.replaceState(null, "", address());
    if (!state.items.length) {
      results.replaceChildren(make("p", "empty", "Add an item, or choose a user, to see recommendations."));
      return;
    }
    const when = times();
    results.setAttribute("aria-busy", "true");
    try {
      const response = await ask("try/recommendations", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          history: state.items.map((item, place) => ({ item_id: item.item_id, timestamp: when[place] })),
          k: Number(at("k").value),
          exclude_seen: at("exclude").checked,
          user: state.user,
          target: state.target && { item_id: state.target.item_id, timestamp: when.at(-1) + state.target.gap },
          explained: state.explained,
        }),
      });
      show(await response.text());
    } finally {
      results.setAttribute("aria-busy", "false");
    }
  });

  // Whether the lists on the page are of the same history before its last change, so that places can be compared.
  let followed = false;

  const lists = () => [...results.querySelectorAll(".top-items")];
  const ranks = () => lists().map((list) => new Map([...list.children].map((line, place) => [line.dataset.item, place])));

  function mark(before) {
    lists().forEach((list, run) => [...list.children].forEach((line, place) => {
      const was = before[run]?.get(line.dataset.item);
      if (was === place) return;
      const [name, text] = was === undefined ? ["new", "new"] : was > place ? ["up", `▲ ${was - place}`] : ["down", `▼ ${place - was}`];
      const shown = make("span", `moved moved-${name}`, text);
      if (was !== undefined) shown.setAttribute("aria-label", `${name} ${Math.abs(was - place)}`);
      line.querySelector(".rank").append(shown);
    }));
  }

  function show(html) {
    const held = results.contains(document.activeElement) ? document.activeElement : null;
    const item = held?.closest("[data-item]")?.dataset.item, act = held?.dataset.act, tab = held?.id;
    const chosen = results.querySelector("[role=tab][aria-selected=true]")?.id;
    const open = [...results.querySelectorAll("details[open]")].map(keyOf);
    const before = ranks();
    const parsed = new DOMParser().parseFromString(html, "text/html"); // escaped by the service; no script in it would run
    results.replaceChildren(...parsed.body.childNodes);
    if (followed) mark(before);
    followed = true;
    for (const each of results.querySelectorAll("details")) each.open = open.includes(keyOf(each));
    results.dispatchEvent(new Event("athwe:shown", { bubbles: true }));
    if (chosen) at(chosen)?.click();
    const again = item === undefined ? tab && at(tab) : results.querySelector(`[data-item="${CSS.escape(item)}"] [data-act="${act}"]`);
    if (held) (again || results.querySelector("button"))?.focus({ preventScroll: true });
  }

  const keyOf = (details) => `${details.closest(".why")?.id} ${details.closest("section").querySelector("h4")?.textContent}`;

  results.addEventListener("click", (event) => {
    const pressed = event.target.closest("[data-act]");
    if (!pressed) return;
    const item = pressed.closest("[data-item]").dataset;
    if (pressed.dataset.act === "add") {
      add({ item_id: item.item, title: item.title, category: item.category, picture: item.picture || null, initials: item.initials });
    } else {
      state.explained = item.item;
      say(`The reasons for ${item.title} are below.`);
      recommend();
    }
  });

  document.addEventListener("error", (event) => { // a picture that is none
    if (!(event.target instanceof HTMLImageElement)) return;
    event.target.replaceWith(initials({ initials: event.target.dataset.initials ?? event.target.closest("[data-initials]")?.dataset.initials ?? "?" }));
  }, true);

  // ---- users and choices

  at("user").addEventListener("input", async (event) => {
    const told = await get("try/users", { q: event.target.value }).catch(() => ({ users: [] }));
    at("users").replaceChildren(...told.users.map((id) => new Option(id, id)));
  });
  at("user").addEventListener("change", (event) => { if (event.target.value.trim()) loadUser(event.target.value.trim()); });
  at("any-user").addEventListener("click", () => loadUser(null));
  at("clear").addEventListener("click", () => {
    take(null, [], null);
    changed("The history is empty.");
    search.focus();
  });
  at("start").addEventListener("change", (event) => {
    const seconds = Date.parse(`${event.target.value}T12:00:00Z`) / 1000;
    if (!Number.isFinite(seconds) || seconds < 0) return;
    state.first = seconds;
    changed();
  });
  at("see").addEventListener("click", () => results.scrollIntoView());
  at("k").addEventListener("change", () => {
    followed = false;
    recommend();
  });
  at("exclude").addEventListener("change", recommend);

  async function openShared(text) {
    const shared = JSON.parse(decodeURIComponent(text));
    const fetched = async ([id, timestamp]) => ({ ...await get("try/item", { id }), timestamp });
    const history = await Promise.all(shared.items.slice(0, facts.mostItems).map(fetched));
    take(shared.user, history, shared.target && await fetched(shared.target));
    changed("The shared history.");
  }

  if (location.hash.length > 1) {
    openShared(location.hash.slice(1)).catch(() => complain("This address holds no history of this data set."));
  } else loadUser(null);
})();
