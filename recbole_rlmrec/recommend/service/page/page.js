"use strict";

// Texts of the data are put in as texts only, never as HTML.

const K = 10, WAIT = 300;
const $ = (id) => document.getElementById(id);

function made(tag, attributes = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else element.setAttribute(name, value);
  }
  element.append(...content);
  return element;
}

// ---------------------------------------------------------------------- the service

async function ask(path, parameters = {}, body = null) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null);
  const headers = {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  let answer;
  try {
    answer = await fetch(path + search, {
      headers, method: body === null ? "GET" : "POST", body: body === null ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The service cannot be reached.");
  }
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    await unlocked("This token is not the service's.");
    return ask(path, parameters, body);
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

let unlocking = null;

function unlocked(reason = "") {
  unlocking ??= new Promise((resolve) => {
    if (reason) $("locked-title").textContent = reason;
    $("unlock").addEventListener("submit", () => {
      sessionStorage.setItem("token", $("token").value);
      $("token").value = "";
      unlocking = null;
      resolve();
    }, { once: true });
    $("locked").showModal();
  });
  return unlocking;
}

function say(text, { wrong = false, where = "status" } = {}) {
  $(where).textContent = text || "\u00a0";
  $(where).classList.toggle("error", wrong);
}

// ---------------------------------------------------------------------- lists

const name = (row) => row.title ?? row.item;

function itemButton(row, ...more) {
  return made("button", { type: "button", onclick: () => showItem(row.item) },
    made("span", { class: "title" }, name(row)), ...more);
}

function move(row, ranks) {
  if (ranks === null) return "";
  const before = ranks.get(row.item);
  if (before === undefined) return made("span", { class: "move new" }, "new");
  const by = before - row.rank;
  if (by === 0) return made("span", { class: "move", "aria-label": "same place" }, "–");
  const [kind, sign] = by > 0 ? ["up", "▲"] : ["down", "▼"];
  return made("span", { class: `move ${kind}`, "aria-label": `${kind} by ${Math.abs(by)}` }, `${sign} ${Math.abs(by)}`);
}

function showList(side, title, rows, { ranks = null, gone = new Set(), nothing = "Nothing is left to recommend." } = {}) {
  $(`${side}-title`).textContent = title || "\u00a0";
  const list = $(side).querySelector("ol");
  list.replaceChildren(...rows.map((row) => {
    const mark = gone.has(row.item) ? made("span", { class: "move" }, "out") : move(row, ranks);
    const button = itemButton(row, mark);
    button.prepend(made("span", { class: "rank" }, String(row.rank)));
    return made("li", {}, button);
  }));
  if (!rows.length) list.append(made("li", { class: "nothing" }, nothing));
}

function showPair(before, after) {
  $("lists").classList.toggle("single", before === null);
  const stays = new Set(after.rows.map((row) => row.item));
  let ranks = null;
  if (before !== null) {
    ranks = new Map(before.rows.map((row) => [row.item, row.rank]));
    const gone = new Set(before.rows.map((row) => row.item).filter((item) => !stays.has(item)));
    showList("before", before.title, before.rows, { gone });
  }
  showList("after", after.title, after.rows, { ranks });
}

let model = null, user = null, asked = 0;

async function showLists() {
  const number = ++asked;
  const sentence = $("sentence").value.trim();
  $("weight").disabled = !(sentence && user !== null);
  if (user === null && !sentence) {
    $("lists").classList.add("single");
    showList("after", model.model, [], { nothing: "Pick a user, or type a sentence." });
    say("");
    return;
  }
  $("lists").setAttribute("aria-busy", "true");
  try {
    const weight = $("weight").disabled ? null : $("weight").value;
    const [lists, query] = await Promise.all([
      user === null ? null : ask("/recommend", { user, k: K, compare: true }),
      sentence ? ask("/query", { text: sentence, user, weight, k: K }) : null,
    ]);
    if (number !== asked) return;
    if (query === null) {
      const base = lists.base ? { title: model.base, rows: lists.base } : null;
      showPair(base, { title: model.model, rows: lists.items });
    } else {
      const before = lists ? { title: "Without the sentence", rows: lists.items } : null;
      showPair(before, { title: "With the sentence", rows: query.items });
    }
    say("");
  } catch (error) {
    if (number === asked) say(error.message, { wrong: true });
  } finally {
    if (number === asked) $("lists").setAttribute("aria-busy", "false");
  }
}

// ---------------------------------------------------------------------- a user

async function pickUser(id) {
  closeUsers();
  user = id;
  $("user").value = id ?? "";
  history.replaceState(null, "", id === null ? location.pathname : `#user=${encodeURIComponent(id)}`);
  const lists = showLists();
  if (id === null) {
    $("who-title").textContent = "User";
    $("profile").textContent = "Nobody is picked.";
    $("history").replaceChildren();
    $("history-count").textContent = "";
  } else {
    try {
      const found = await ask("/users", { user: id });
      if (user === id) {
        $("who-title").textContent = `User ${id}`;
        $("profile").textContent = found.profile ?? "There is no profile of this user.";
        $("history").replaceChildren(...found.history.map((row) => made("li", {}, itemButton(row))));
        $("history-count").textContent = `(${found.history.length})`;
      }
    } catch (error) {
      say(error.message, { wrong: true });
    }
  }
  await lists;
}

let active = -1, searched = 0;

const options = () => [...$("users").children];

function closeUsers() {
  searched += 1;
  active = -1;
  $("users").hidden = true;
  $("user").setAttribute("aria-expanded", "false");
  $("user").removeAttribute("aria-activedescendant");
}

function activate(number) {
  const all = options();
  if (!all.length) return;
  active = (number + all.length) % all.length;
  all.forEach((each, place) => each.setAttribute("aria-selected", String(place === active)));
  all[active].scrollIntoView({ block: "nearest" });
  $("user").setAttribute("aria-activedescendant", all[active].id);
}

async function searchUsers() {
  const number = ++searched;
  try {
    const { users } = await ask("/users", { search: $("user").value.trim(), k: 50 });
    if (number !== searched) return;
    $("users").replaceChildren(...users.map((id, place) => {
      const option = made("li", { id: `user-${place}`, role: "option", "aria-selected": "false" }, id);
      // Before the field loses the focus, which closes the list.
      option.addEventListener("pointerdown", (event) => { event.preventDefault(); pickUser(id); });
      return option;
    }));
    active = -1;
    $("users").hidden = !users.length;
    $("user").setAttribute("aria-expanded", String(users.length > 0));
    say(users.length ? "" : `No user's id begins with “${$("user").value.trim()}”.`, { wrong: !users.length });
  } catch (error) {
    if (number === searched) say(error.message, { wrong: true });
  }
}

function keyOfUsers(event) {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if ($("users").hidden) searchUsers();
    else activate(event.key === "ArrowDown" ? active + 1 : Math.max(active, 0) - 1);
  } else if (event.key === "Enter") {
    event.preventDefault();
    const typed = $("user").value.trim();
    pickUser(active >= 0 ? options()[active].textContent : typed || null);
  } else if (event.key === "Escape") {
    closeUsers();
  }
}

// ---------------------------------------------------------------------- an item

async function showItem(id) {
  const near = (list, rows) => $(list).replaceChildren(...(rows?.length ? rows.map((row) => made("li", {},
    itemButton(row, made("span", { class: "number" }, row.cosine.toFixed(2))))) :
    [made("li", { class: "nothing" }, "This space does not have it.")]));
  try {
    const [item, neighbours] = await Promise.all([ask("/items", { item: id }), ask("/similar", { item: id, k: K })]);
    $("item-title").textContent = name(item);
    $("item-profile").textContent = item.profile ?? `Id ${id}`;
    near("near-text", neighbours.in_text);
    near("near-model", neighbours.in_model);
    if (!$("item").open) $("item").showModal();
    $("item").scrollTop = 0;
  } catch (error) {
    say(error.message, { wrong: true });
  }
}

async function addItem(event) {
  event.preventDefault();
  const id = $("new-id").value.trim();
  const item = { item_id: id, title: $("new-title").value.trim(), description: $("new-text").value.trim() };
  say("Reading the text …", { where: "added" });
  try {
    await ask("/items", {}, { items: [item] });
    $("add").reset();
    say(`“${item.title}” is ranked with the other items now.`, { where: "added" });
    await Promise.all([showLists(), showItem(id)]);
  } catch (error) {
    say(error.message, { wrong: true, where: "added" });
  }
}

// ---------------------------------------------------------------------- start

function later(work) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(work, WAIT); };
}

async function start() {
  $("user").addEventListener("input", later(searchUsers));
  $("user").addEventListener("keydown", keyOfUsers);
  $("user").addEventListener("blur", closeUsers);
  $("user").addEventListener("focus", () => $("user").select());
  $("sentence").addEventListener("input", later(showLists));
  $("weight").addEventListener("input", later(showLists));
  $("controls").addEventListener("submit", (event) => { event.preventDefault(); showLists(); });
  $("add").addEventListener("submit", addItem);
  $("locked").addEventListener("cancel", (event) => event.preventDefault());
  $("item").querySelector(".close").addEventListener("click", () => $("item").close());
  $("item").addEventListener("click", (event) => { if (event.target === $("item")) $("item").close(); });
  try {
    const { needs_token } = await ask("/health");
    if (needs_token && !sessionStorage.getItem("token")) await unlocked();
    model = await ask("/model");
    $("weight").value = model.query_weight;
    const count = (number, noun) => `${number.toLocaleString("en")} ${noun}`;
    $("about").textContent = [model.model, model.dataset, count(model.users, "users"), count(model.items, "items"), model.note].filter(Boolean).join(" · ");
    const linked = new URLSearchParams(location.hash.slice(1)).get("user");
    await pickUser(linked ?? (await ask("/users", { search: "", k: 1 })).users[0]);
    document.body.dataset.ready = "yes";
  } catch (error) {
    say(error.message, { wrong: true });
  }
}

start();
