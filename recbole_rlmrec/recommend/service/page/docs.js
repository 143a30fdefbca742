"use strict";

function made(tag, kind, ...content) {
  const element = document.createElement(tag);
  element.className = kind;
  element.append(...content);
  return element;
}

function operation(method, path, about) {
  const rows = (about.parameters ?? []).map((each) => made("tr", "",
    made("td", "", made("code", "", each.name)),
    made("td", "", `${each.description ?? ""}${each.required ? " (needed)" : ""}`)));
  if (about.requestBody) {
    const schema = about.requestBody.content["application/json"].schema;
    const names = Object.keys(schema.properties.items.items.properties).join(", ");
    rows.push(made("tr", "", made("td", "", "body"), made("td", "", `JSON: items, a list of objects with ${names}`)));
  }
  return made("section", "operation", made("h2", "", made("code", "", `${method.toUpperCase()} ${path}`)),
    made("p", "", about.description ?? about.summary), made("table", "", ...rows));
}

async function start() {
  const token = sessionStorage.getItem("token");
  const answer = await fetch("/openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  const found = await answer.json();
  const place = document.getElementById("operations");
  if (!answer.ok) place.append(made("p", "error", found.error));
  for (const [path, methods] of Object.entries(found.paths ?? {})) {
    for (const [method, about] of Object.entries(methods)) place.append(operation(method, path, about));
  }
}

start();
