// SPDX-License-Identifier: Apache-2.0

// Keeps the tables as they are now, from server-sent events. The server makes every text but those of
// ages; nothing here makes markup of a text.
"use strict";
(() => {
	const STEPS = 150; // samples of a graph
	const LEVELS = 7; // between a value and its double, as in history.go
	const PHASES = 8; // colours
	const SILENCE = 15000; // ms without an event, after which the connection is taken for dead
	const SVG = "http://www.w3.org/2000/svg";

	const $ = (id) => document.getElementById(id);
	const version = document.querySelector("meta[name=version]").content;
	const facts = [...document.querySelectorAll("[data-fact]")];
	const graphs = { at: [], totals: [], loads: new Map(), waits: new Map() };
	const drawn = ["loads", "waits"]; // columns with graphs, by their kinds
	const tables = new Map();
	let now = Date.now(); // the server's, at the last sample

	// Texts.

	// age is the time since something that was so many seconds after 1970; below zero: nobody knows.
	function age(since) {
		if (since < 0) return "–";
		const s = Math.max(0, Math.floor(now / 1000 - since));
		if (s < 60) return `${s} s`;
		if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
		if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
		return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
	}

	function size(n) {
		let unit = -1;
		while (n >= 1023.5 && unit < 5) {
			n /= 1024;
			unit++;
		}
		return `${n >= 99.95 || Number.isInteger(n) ? n.toFixed(0) : n.toPrecision(3)} ${unit < 0 ? "B" : "KMGTPE"[unit] + "iB"}/s`;
	}

	function took(us) {
		const [n, unit] = us < 1000 ? [us, "µs"] : us < 1e6 ? [us / 1000, "ms"] : [us / 1e6, "s"];
		return `${n >= 99.95 || Number.isInteger(n) ? n.toFixed(0) : n.toPrecision(3)} ${unit}`;
	}

	const count = (n) => `${Math.round(n).toLocaleString("en")}/s`;

	function setText(element, text) {
		if (element.textContent !== text) element.textContent = text;
	}

	// Tables.

	for (const element of document.querySelectorAll("main table")) {
		const heads = [...element.tHead.rows[0].cells];
		const table = {
			id: element.id,
			element,
			body: element.tBodies[0],
			region: element.parentElement,
			heads,
			kinds: heads.map((h) => h.dataset.kind),
			classes: heads.map((h) => h.className),
			head: heads.findIndex((h) => "head" in h.dataset),
			rows: new Map(),
			sort: null, // { column, down }
		};
		table.ages = table.kinds.flatMap((k, i) => (k === "age" ? [i] : []));
		for (const row of table.body.rows) table.rows.set(row.dataset.key, row);
		tables.set(element.id, table);
		heads.forEach((head, column) => {
			if (drawn.includes(table.kinds[column]) || table.kinds[column] === "phases") return;
			const button = document.createElement("button");
			button.type = "button";
			button.textContent = head.textContent;
			button.addEventListener("click", () => sortBy(table, column));
			head.replaceChildren(button);
		});
	}

	function makeRow(table, key) {
		const row = document.createElement("tr");
		row.dataset.key = key;
		table.classes.forEach((name, i) => {
			const cell = document.createElement(i === table.head ? "th" : "td");
			if (i === table.head) cell.scope = "row";
			cell.className = name;
			row.append(cell);
		});
		table.rows.set(key, row);
		return row;
	}

	function setCell(table, row, [column, text, value, mark, parts]) {
		const cell = row.cells[column];
		const name = mark ? `${table.classes[column]} ${mark}` : table.classes[column];
		if (cell.className.trim() !== name) cell.className = name;
		cell.dataset.value = value;
		if (table.kinds[column] === "phases") setPhases(cell, text.split(", "), parts || []);
		else if (table.kinds[column] !== "age" && !drawn.includes(table.kinds[column])) setText(cell, text);
	}

	function applyTable(table, change) {
		if (change.order) {
			const keep = new Set(change.order);
			for (const [key, row] of table.rows) {
				if (keep.has(key)) continue;
				row.remove();
				table.rows.delete(key);
			}
			let at = table.body.rows[0] || null;
			for (const key of change.order) {
				const row = table.rows.get(key) || makeRow(table, key);
				if (row === at) at = row.nextElementSibling;
				else table.body.insertBefore(row, at);
			}
			table.order = change.order;
		}
		for (const [key, ...cells] of change.rows || []) {
			const row = table.rows.get(key);
			if (row) for (const cell of cells) setCell(table, row, cell);
		}
		if (change.order) {
			const none = change.order.length === 0;
			const section = table.region.parentElement;
			table.element.hidden = none;
			section.querySelector(".empty").hidden = !none;
			const left = section.querySelector(".left");
			left.hidden = !change.left;
			setText(left, `${change.left} more are not shown here: gotgtd show and gotgtd sessions have them.`);
			const counted = document.querySelector(`[data-count="${table.id}"]`);
			setText(counted, String(change.order.length + change.left));
			counted.classList.toggle("bad", table.id === "attention" && !none);
			arrange(table);
		}
	}

	function setAges() {
		for (const table of tables.values()) {
			for (const column of table.ages) {
				for (const row of table.rows.values()) {
					const cell = row.cells[column];
					setText(cell, age(cell.dataset.value));
				}
			}
		}
		for (const fact of facts) if (fact.dataset.kind === "age") setText(fact, age(fact.dataset.value));
	}

	// Order and choice of rows. A row stays where it is while its figures change.

	function sortBy(table, column) {
		const was = table.sort;
		const numbers = table.kinds[column] === "number";
		if (!was || was.column !== column) table.sort = { column, down: numbers };
		else if (was.down === numbers) table.sort = { column, down: !numbers };
		else table.sort = null;
		table.heads.forEach((h, i) => {
			if (table.sort && i === column) h.setAttribute("aria-sort", table.sort.down ? "descending" : "ascending");
			else h.removeAttribute("aria-sort");
		});
		arrange(table);
	}

	function arrange(table) {
		let rows;
		if (table.sort) {
			const { column, down } = table.sort;
			const numbers = table.kinds[column] === "number" || table.kinds[column] === "age";
			rows = [...table.body.rows].sort((a, b) => {
				const [x, y] = [a.cells[column], b.cells[column]];
				const order = numbers ? x.dataset.value - y.dataset.value : x.textContent.localeCompare(y.textContent);
				return down ? -order : order;
			});
		} else if (table.order) {
			rows = table.order.map((key) => table.rows.get(key));
		}
		if (rows && rows.some((row, i) => table.body.rows[i] !== row)) table.body.append(...rows);
		filter();
	}

	function filter() {
		const wanted = $("filter").value.trim().toLowerCase();
		let all = 0;
		let shown = 0;
		for (const table of tables.values()) {
			for (const row of table.rows.values()) {
				const hide = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
				if (row.hidden !== hide) row.hidden = hide;
				all++;
				if (!hide) shown++;
			}
		}
		setText($("found"), wanted === "" ? "" : `${shown} of ${all} rows`);
	}

	// Graphs.

	function svg(name, attributes) {
		const element = document.createElementNS(SVG, name);
		for (const key in attributes) element.setAttribute(key, attributes[key]);
		return element;
	}

	// line is the path of values, of which top is the highest that there is room for. The last is at the right.
	function line(values, top, width, height) {
		let d = "";
		const step = width / (STEPS - 1);
		const from = STEPS - values.length;
		for (let i = 0; i < values.length; i++) {
			const y = height - 1 - (values[i] / top) * (height - 2);
			d += `${i ? "L" : "M"}${((from + i) * step).toFixed(1)} ${y.toFixed(1)}`;
		}
		return d;
	}

	function drawChart(id, columns, text) {
		const chart = $(id);
		if (!chart.firstChild) {
			chart.append(svg("path", { class: "base", d: "M0 79H600" }), svg("path", { class: "upgrade" }), svg("path", { class: "second" }), svg("path", { class: "first" }));
		}
		const [first, second = []] = columns.map((column) => graphs.totals.map((t) => t[column]));
		const top = Math.max(1, ...first, ...second);
		chart.querySelector(".first").setAttribute("d", line(first, top, 600, 80));
		chart.querySelector(".second").setAttribute("d", line(second, top, 600, 80));
		let marks = "";
		for (const row of tables.get("upgrades").rows.values()) {
			const time = row.cells[0].dataset.value * 1000;
			const i = graphs.at.findIndex((t) => t >= time);
			if (i > 0) marks += `M${(((STEPS - graphs.at.length + i) * 600) / (STEPS - 1)).toFixed(1)} 0V80`;
		}
		chart.querySelector(".upgrade").setAttribute("d", marks);
		setText($(id.replace("chart", "top")), `up to ${text(top)} in 5 minutes`);
	}

	const value = (level) => (level ? 2 ** ((level - 1) / LEVELS) : 0);

	function drawGraphs() {
		drawChart("chart-bytes", [0, 1], size);
		drawChart("chart-commands", [2, 3], count);
		drawChart("chart-latency", [4], took);
		const table = tables.get("luns");
		for (const kind of drawn) {
			const column = table.kinds.indexOf(kind);
			for (const [key, row] of table.rows) {
				const levels = graphs[kind].get(key);
				if (levels && !row.hidden) drawGraph(row.cells[column], levels);
			}
		}
	}

	function drawGraph(cell, levels) {
		const busy = levels.some((l) => l > 0);
		if (!busy && cell.dataset.busy !== "yes") return;
		cell.dataset.busy = busy ? "yes" : "no";
		if (!cell.firstChild) {
			const graph = svg("svg", { viewBox: "0 0 150 20", preserveAspectRatio: "none", "aria-hidden": "true" });
			graph.append(svg("path", { class: "area" }), svg("path", {}));
			cell.append(graph);
		}
		const values = levels.map(value);
		const d = line(values, Math.max(1, ...values), 150, 20);
		const [area, stroke] = cell.firstChild.children;
		stroke.setAttribute("d", d);
		const start = (((STEPS - values.length) * 150) / (STEPS - 1)).toFixed(1);
		area.setAttribute("d", `${d}L150 20L${start} 20Z`);
	}

	// remember adds a sample to the graphs, or begins them anew with those of the server.
	function remember(message) {
		if (message.past) {
			graphs.at = message.past.at;
			graphs.totals = message.past.totals;
			for (const kind of drawn) {
				graphs[kind] = new Map();
				for (const key in message.past[kind]) {
					graphs[kind].set(key, Array.from(atob(message.past[kind][key]), (c) => c.charCodeAt(0)));
				}
			}
			return;
		}
		if (message.at <= graphs.at.at(-1)) return;
		const length = graphs.at.length;
		const over = Math.max(0, length + 1 - STEPS);
		graphs.at.push(message.at);
		graphs.at.splice(0, over);
		graphs.totals.push(message.totals);
		graphs.totals.splice(0, over);
		const rows = tables.get("luns").rows;
		drawn.forEach((kind, i) => {
			for (const key of rows.keys()) {
				let levels = graphs[kind].get(key);
				if (!levels) graphs[kind].set(key, (levels = new Array(length).fill(0)));
				levels.push(message.levels?.[key]?.[i] ?? 0);
				levels.splice(0, over);
			}
			for (const key of graphs[kind].keys()) if (!rows.has(key)) graphs[kind].delete(key);
		});
	}

	function setPhases(cell, texts, parts) {
		const sum = parts.reduce((s, v) => s + Math.max(v, 0), 0) || 1;
		const bar = svg("svg", { viewBox: "0 0 1000 8", preserveAspectRatio: "none", "aria-hidden": "true" });
		const names = document.createElement("div");
		names.className = "names";
		let x = 0;
		parts.forEach((ms, i) => {
			const text = document.createElement("span");
			text.textContent = texts[i];
			names.append(text, " ");
			if (ms < 0) return; // outside of the pause, which the bar is of
			const width = (ms / sum) * 1000;
			bar.append(svg("rect", { class: `phase-${i % PHASES}`, x: x.toFixed(2), width: width.toFixed(2), height: 8 }));
			x += width;
			text.className = `phase-${i % PHASES}`;
		});
		cell.replaceChildren(bar, names);
	}

	// Events.

	let generation = null;

	function setFacts(cells) {
		for (const [i, text, number, mark] of cells) {
			const fact = facts[i];
			if (!fact) continue;
			fact.dataset.value = number;
			if (fact.className !== (mark || "")) fact.className = mark || "";
			if (fact.dataset.kind !== "age") setText(fact, text);
			if (fact.id === "fact-generation") generation = text;
		}
	}

	function say(text, wrong) {
		setText($("live"), text);
		$("live").classList.toggle("warn", wrong);
		document.documentElement.classList.toggle("stale", wrong);
	}

	function update(message) {
		const start = performance.now();
		now = message.at;
		setFacts(message.facts || []);
		for (const id in message.tables || {}) {
			const table = tables.get(id);
			if (table) applyTable(table, message.tables[id]);
		}
		remember(message);
		setAges();
		drawGraphs();
		say(`Live. Generation ${generation} serves.`, false);
		performance.measure("update", { start });
		performance.clearMeasures("update");
	}

	let source = null;
	let heard = 0;
	let timer = 0;

	function connect() {
		clearTimeout(timer);
		if (source) source.close();
		heard = Date.now();
		source = new EventSource("events");
		source.addEventListener("message", (event) => {
			heard = Date.now();
			const message = JSON.parse(event.data);
			// The page of another version of gotgtd has other columns. It is asked for once.
			if (message.page !== version) {
				if (sessionStorage.getItem("page") === message.page) return say("This page is older than gotgtd: load it again.", true);
				sessionStorage.setItem("page", message.page);
				return location.reload();
			}
			update(message);
		});
		// The browser connects again by itself after a stream has ended, as in an upgrade, but not after it was refused.
		source.addEventListener("error", () => {
			if (source.readyState !== EventSource.CLOSED) return;
			say("Not live: gotgtd can't be reached, or too many look at this page. Trying again.", true);
			timer = setTimeout(connect, 5000);
		});
	}

	setInterval(() => {
		if (document.hidden || Date.now() - heard < SILENCE) return;
		say("Not live: gotgtd does not answer. Trying again.", true);
		connect();
	}, 5000);

	// A page that nobody sees takes up no stream.
	document.addEventListener("visibilitychange", () => {
		if (!document.hidden) return connect();
		clearTimeout(timer);
		if (source) source.close();
	});

	document.documentElement.classList.add("js");
	$("tools").hidden = false;
	$("charts").hidden = false;
	$("filter").addEventListener("input", filter);
	$("tools").addEventListener("submit", (event) => event.preventDefault());
	for (const row of tables.get("upgrades").rows.values()) row.cells[tables.get("upgrades").kinds.indexOf("phases")].textContent = "";
	if (!document.hidden) connect();
})();
