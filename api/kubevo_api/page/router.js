// From the address's fragment to a view: #/ · #/compare?ids=… · #/<namespace>/<name>?repeat=…

/** Return {view, params, query} for a fragment; an unknown one is the list. */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const query = new URLSearchParams(search);
  const parts = path.split("/").filter(Boolean).map(decoded);
  if (parts.length === 0) return { view: "list", params: {}, query };
  if (parts.length === 1 && parts[0] === "compare") return { view: "compare", params: {}, query };
  if (parts.length === 2) {
    return { view: "detail", params: { namespace: parts[0], name: parts[1] }, query };
  }
  return { view: "missing", params: { path }, query };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Return the fragment of an Experiment's view. */
export function toExperiment(namespace, name, query = {}) {
  return `#/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${asSearch(query)}`;
}

/** Return the fragment of a comparison. */
export function toCompare(ids) {
  return ids.length ? `#/compare?ids=${ids.map(encodeURIComponent).join(",")}` : "#/compare";
}

/** Show `query` in the address without going anywhere: a reload or a link comes back to it. */
export function remember(query) {
  const path = location.hash.split("?", 1)[0] || "#/";
  history.replaceState(null, "", path + asSearch(query));
}

function asSearch(query) {
  const known = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  return known.length ? `?${new URLSearchParams(known)}` : "";
}
