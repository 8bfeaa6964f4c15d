// Graphs and curves: places come from the server, colours from the style sheet, states from the page.
"use strict";
(() => {
  const SIGNS = {
    verified: ["✓", "good"], applied: ["↓", "active"], sent: ["→", "active"], pending: ["…", "calm"],
    exempt: ["○", "calm"], unapproved: ["?", "warning"], halted: ["■", "bad"], not_reached: ["!", "warning"],
    ineffective: ["!", "bad"], harmful: ["!", "bad"], failed: ["✕", "bad"], rolling_back: ["↶", "active"],
    rolled_back: ["↶", "calm"], active: ["", "good"], superseded: ["↦", "calm"], retired: ["○", "calm"],
  };
  // Okabe and Ito's colours, which differ without colour vision, too.
  const OWNERS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8b939e"];
  const DEEP = "#0072b2"; // the one on which dark letters cannot be read
  const OF_CAMPAIGN = ["campaign", "score"];
  const MANY = 400;
  const SCORE_STEPS = 5;
  const NODE = { width: 108, height: 36 };
  const MAPPED = 60; // boxes from which on a large drawing has a small one of the whole in its corner
  const READABLE = 0.5;
  const FAR = 0.3;
  const LEGIBLE = 0.8;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const styles = (many) => [
    { selector: "node", style: {
      shape: "round-rectangle", ...NODE, "background-color": "data(fill)", "border-color": "data(line)",
      "border-width": "data(width)", "border-style": "data(style)", label: "data(label)", color: "data(ink)",
      "font-size": 11, "text-wrap": "wrap", "text-valign": "center", "text-halign": "center",
      "font-family": "system-ui, Liberation Sans, DejaVu Sans, sans-serif", "min-zoomed-font-size": many ? 7 : 5,
    } },
    // From afar a box is a spot of its colour: what is pale with letters on it is not seen there.
    { selector: ".far", style: { "background-color": "data(dot)", "border-color": "data(dot)" } },
    { selector: "edge", style: {
      width: 1.3, "line-color": colour("edge"), "target-arrow-color": colour("edge"), "target-arrow-shape": "triangle",
      "arrow-scale": 0.8, "curve-style": many ? "haystack" : "straight", opacity: many ? 0.35 : 0.85,
    } },
    { selector: "edge[weights]", style: {
      "curve-style": "round-segments", "segment-weights": "data(weights)", "segment-distances": "data(distances)",
      "segment-radii": 30, "edge-distances": "node-position",
    } },
    { selector: ".found", style: { "border-width": 5, "border-color": colour("warning-bar") } },
    { selector: ":selected", style: { "border-width": 5, "border-color": colour("focus") } },
  ];

  const short = (text, most) => (text.length <= most ? text : `${text.slice(0, most / 2)}…${text.slice(1 - most / 2)}`);

  // What is in a box of many, by sign.
  const summed = (box, way) => Object.entries(OF_CAMPAIGN.includes(way) ? box.states : box.statuses)
    .map(([name, number]) => `${number} ${(SIGNS[name] ?? ["·"])[0] || "✓"}`).join(" ") || `${box.models.length} ✓`;

  const painted = (box, way, owners, roots, states) => {
    const state = states[box.id] ?? (OF_CAMPAIGN.includes(way) ? box.state : box.status);
    const [sign, tone] = SIGNS[state] ?? ["·", "calm"];
    const byOwner = way === "owner";
    const byScore = way === "score";
    // Steps of lightness, which are told apart without colour vision and on a grey print.
    const step = box.score === null ? 0 : Math.min(SCORE_STEPS, 1 + Math.floor(SCORE_STEPS * box.score));
    const root = roots.includes(box.id);
    const group = !box.current;
    // How many there are is what the sum below says.
    const head = group ? short(box.title.replace(/[:,] [\d,]+ models?$/, ""), 16) : `${sign} ${short(box.id, 14)}`;
    const scored = step ? `${group ? "≥ " : ""}${box.score.toFixed(2)} ` : "";
    const below = byScore ? scored + box.owner : group ? summed(box, way) : box.owner;
    return {
      label: box.labelled === false ? "" : `${head}\n${short(below, 18)}`,
      fill: byOwner ? owners.get(box.owner) : colour(byScore ? `score-${step}` : `${tone}-fill`),
      ink: byOwner ? (owners.get(box.owner) === DEEP ? "#fff" : "#1d2430") : colour(byScore ? `score-ink-${step}` : "ink"),
      dot: byOwner ? owners.get(box.owner) : colour(byScore ? `score-${step}` : tone),
      line: root ? colour("warning-bar") : byOwner || byScore ? colour("edge") : colour(tone),
      width: root || group ? 4 : 1.5,
      style: group ? "double" : (byScore ? !step : tone === "calm") ? "dashed" : "solid",
    };
  };

  // A way around boxes, as shares of the line between two boxes and distances from it.
  const bent = (edge, places) => {
    const [from, to] = [places.get(edge.parent), places.get(edge.child)];
    if (!edge.way.length) return {};
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = Math.hypot(dx, dy);
    return {
      weights: edge.way.map(([x, y]) => ((x - from.x) * dx + (y - from.y) * dy) / length ** 2),
      distances: edge.way.map(([x, y]) => ((y - from.y) * dx - (x - from.x) * dy) / length),
    };
  };

  // The whole drawing in a corner of it, and a frame around what is seen; a press or a drag goes there.
  // It is for pointers only: the buttons, the search and the list do the same for all others.
  const map = (element, graph) => {
    const canvas = element.parentElement.appendChild(document.createElement("canvas"));
    canvas.className = "minimap";
    canvas.setAttribute("aria-hidden", "true");
    const whole = graph.nodes().boundingBox({ includeLabels: false });
    const most = element.clientWidth < 600 ? 110 : 200;
    const scale = Math.min(most / whole.w, 0.7 * most / whole.h);
    const sharp = devicePixelRatio;
    [canvas.width, canvas.height] = [whole.w, whole.h].map((side) => Math.ceil(Math.max(side * scale, 12) * sharp));
    const still = new OffscreenCanvas(canvas.width, canvas.height);
    const show = () => {
      const pen = canvas.getContext("2d");
      const { x1, y1, x2, y2 } = graph.extent();
      // Where all is seen, it would only hide some of it.
      canvas.hidden = x1 <= whole.x1 && y1 <= whole.y1 && x2 >= whole.x2 && y2 >= whole.y2;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(still, 0, 0);
      const seen = graph.extent();
      const [x, y] = [seen.x1 - whole.x1, seen.y1 - whole.y1].map((side) => side * scale * sharp);
      pen.lineWidth = 2 * sharp;
      pen.strokeStyle = colour("focus");
      pen.strokeRect(x, y, seen.w * scale * sharp, seen.h * scale * sharp);
    };
    const paint = () => {
      const pen = still.getContext("2d");
      pen.clearRect(0, 0, still.width, still.height);
      const [wide, high] = [NODE.width, NODE.height].map((side) => Math.max(side * scale, 1.5) * sharp);
      graph.nodes().forEach((node) => {
        const { x, y } = node.position();
        pen.fillStyle = node.data("dot");
        pen.fillRect((x - whole.x1) * scale * sharp - wide / 2, (y - whole.y1) * scale * sharp - high / 2, wide, high);
      });
      show();
    };
    let waiting = 0;
    graph.on("viewport resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(show); });
    const go = (event) => {
      if (!(event.buttons & 1)) return;
      const place = canvas.getBoundingClientRect();
      const zoom = graph.zoom();
      graph.pan({
        x: graph.width() / 2 - zoom * ((event.clientX - place.x) / scale + whole.x1),
        y: graph.height() / 2 - zoom * ((event.clientY - place.y) / scale + whole.y1),
      });
    };
    canvas.addEventListener("pointerdown", (event) => { event.preventDefault(); canvas.setPointerCapture(event.pointerId); go(event); });
    canvas.addEventListener("pointermove", go);
    paint();
    return paint;
  };

  const draw = (element, data) => {
    const many = data.boxes.length > MANY;
    const roots = JSON.parse(element.dataset.roots ?? "[]");
    const way = element.dataset.colour ?? "campaign";
    const owners = new Map([...new Set(data.boxes.map((box) => box.owner))].sort().map((name, i) => [name, OWNERS[i % OWNERS.length]]));
    const states = () => JSON.parse(element.dataset.states ?? "{}");
    const now = states();
    const places = new Map(data.boxes.map((box) => [box.id, box]));
    const graph = cytoscape({
      container: element,
      elements: {
        nodes: data.boxes.map((box) => ({ data: { ...box, labelled: !many, ...painted({ ...box, labelled: !many }, way, owners, roots, now) }, position: { x: box.x, y: box.y }, classes: many ? "far" : "" })),
        edges: data.edges.map((edge) => ({ data: { source: edge.parent, target: edge.child, ...bent(edge, places) } })),
      },
      layout: { name: "preset", fit: true, padding: 12 },
      style: styles(many),
      autoungrabify: true, boxSelectionEnabled: false, minZoom: 0.02, maxZoom: 3,
      hideEdgesOnViewport: many, textureOnViewport: many, pixelRatio: many ? 1 : "auto",
      userZoomingEnabled: element.classList.contains("large"), // a page that is scrolled stays scrollable
    });
    // As high as it needs to be, within what the style sheet gives it.
    const box = graph.nodes().boundingBox();
    const needed = box.h * Math.min(1.25, element.clientWidth / Math.max(box.w, 1)) + 60;
    if (needed < element.clientHeight) element.style.height = `${Math.max(needed, 150)}px`;
    const fit = () => {
      graph.resize();
      graph.fit(undefined, 12);
      if (graph.zoom() > 1.25) { graph.zoom(1.25); graph.center(); }
      // A few boxes on a phone are readable rather than all there: the roots first, the rest by dragging.
      const cut = !many && graph.zoom() < LEGIBLE && element.clientWidth < 600;
      if (cut) { graph.zoom(LEGIBLE); graph.center(); graph.panBy({ x: 12 - graph.nodes().renderedBoundingBox().x1, y: 0 }); }
      element.toggleAttribute("data-cut", cut);
    };
    graph.on("render", () => element.toggleAttribute("data-dark", dark.matches)); // how it is drawn, for print
    fit();
    let far = many;
    const step = () => {
      if (far === (graph.zoom() < FAR)) return;
      far = !far;
      graph.batch(() => graph.nodes().toggleClass("far", far));
    };
    step();
    graph.on("viewport", step);
    const remap = data.boxes.length >= MAPPED && element.classList.contains("large") ? map(element, graph) : () => {};
    // To measure thousands of labels takes seconds: a box gets its own when it is large enough to read.
    let waiting = 0;
    const label = () => {
      if (graph.zoom() < READABLE) return;
      const seen = graph.extent();
      const bare = graph.nodes().filter((node) => !node.data("labelled")
        && node.position("x") > seen.x1 && node.position("x") < seen.x2 && node.position("y") > seen.y1 && node.position("y") < seen.y2);
      graph.batch(() => bare.forEach((node) => { node.data("labelled", true); node.data(painted(node.data(), way, owners, roots, states())); }));
    };
    const repaint = () => {
      const latest = states();
      graph.batch(() => graph.nodes().forEach((node) => { node.data(painted(node.data(), way, owners, roots, latest)); }));
      remap();
    };
    dark.addEventListener("change", () => { graph.style(styles(many)); repaint(); });
    addEventListener("resize", fit);
    new MutationObserver(repaint).observe(element, { attributes: true, attributeFilter: ["data-states"] });
    if (many) graph.on("viewport", () => { clearTimeout(waiting); waiting = setTimeout(label, 120); });
    graph.on("tap", "node", (event) => choose(event.target));
    const search = (element.dataset.search ?? "").toLowerCase();
    if (search) {
      const found = graph.nodes().filter((node) => [node.id(), node.data("title"), node.data("owner"), ...node.data("models")].join(" ").toLowerCase().includes(search));
      found.addClass("found");
      if (found.nonempty() && found.length < graph.nodes().length) graph.fit(found.closedNeighborhood(), 60);
    }
    graph.one("render", () => performance.mark("graph drawn"));
    element.dataset.drawn = String(graph.nodes().length);
    return graph;
  };

  const choose = (node) => {
    const place = document.getElementById("graph-chosen");
    const { link, title, current, owner, status } = node.data();
    if (!place) { location.href = link; return; }
    const to = (href, text) => Object.assign(document.createElement("a"), { href, textContent: text });
    if (!current) { place.replaceChildren(`${title} of ${owner} · `, to(link, "unfold it")); return; }
    place.replaceChildren(to(link, current), ` of ${owner}, ${status} · `, to(`/graph?around=${encodeURIComponent(node.id())}`, "look around it"));
  };

  const begin = async (element) => {
    if (element.dataset.elements) {
      return draw(element, JSON.parse(document.getElementById(element.dataset.elements).content.textContent));
    }
    const answer = await fetch(element.dataset.source);
    if (!answer.ok) { element.textContent = "The graph could not be loaded; the table has the same."; return null; }
    return draw(element, await answer.json());
  };

  for (const element of document.querySelectorAll(".graph")) {
    begin(element).then((graph) => {
      if (!graph) return;
      const tools = {
        in: () => graph.zoom({ level: graph.zoom() * 1.4, renderedPosition: { x: graph.width() / 2, y: graph.height() / 2 } }),
        out: () => graph.zoom({ level: graph.zoom() / 1.4, renderedPosition: { x: graph.width() / 2, y: graph.height() / 2 } }),
        fit: () => graph.fit(undefined, 12),
        png: () => {
          const link = document.createElement("a");
          link.href = graph.png({ full: true, scale: 2, bg: colour("card"), maxWidth: 8000, maxHeight: 8000 });
          link.download = "graph.png";
          link.click();
        },
      };
      for (const button of document.querySelectorAll("[data-graph-do]")) {
        button.addEventListener("click", tools[button.dataset.graphDo]);
      }
    });
  }

  // The curve of verified models.
  let curve = null;
  const chart = () => {
    const element = document.querySelector(".chart");
    if (!element) return;
    curve?.destroy();
    const points = JSON.parse(element.dataset.points);
    const begin = Date.parse(points[0].time);
    const times = points.map((one) => (Date.parse(one.time) - begin) / 1000);
    const [unit, length] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => times.at(-1) >= 2 * size) ?? ["s", 1];
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    curve = new uPlot({
      width: element.clientWidth, height: 190, cursor: { y: false }, legend: { live: false, show: false },
      scales: { x: { time: false }, y: { range: [0, Math.max(1, Number(element.dataset.total))] } },
      axes: [{ ...axis, values: (_, at) => at.map((one) => `${+(one / length).toFixed(1)} ${unit}`), space: 60 }, { ...axis, size: 36, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }],
      series: [{}, { label: "verified", stroke: colour("good"), fill: colour("good-fill"), width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    }, [times, points.map((one) => one.verified)], element);
  };
  chart();
  addEventListener("resize", chart);
  dark.addEventListener("change", chart);
  new MutationObserver((changes) => {
    if (changes.some((one) => one.type === "attributes" || [...one.addedNodes].some((node) => node.matches?.(".chart") || node.querySelector?.(".chart")))) chart();
  }).observe(document.getElementById("content"), { subtree: true, childList: true, attributes: true, attributeFilter: ["data-points"] });
})();
