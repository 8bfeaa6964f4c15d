// What pages do beyond links and forms: copying, the state of the connection, small helps in forms.
"use strict";
(() => {
  const say = (element, text) => {
    const before = element.textContent;
    element.textContent = text;
    setTimeout(() => { element.textContent = before; }, 1500);
  };

  const copy = async (button) => {
    const source = button.dataset.copy && document.getElementById(button.dataset.copy);
    const text = source ? source.textContent : button.dataset.copyText;
    try {
      await navigator.clipboard.writeText(text);
      say(button, "Copied");
    } catch {
      if (source) getSelection().selectAllChildren(source); // the person copies what is marked now
      say(button, source ? "Marked: copy it" : "Not allowed");
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy || button.dataset.copyText) copy(button);
    if (button.dataset.add) {
      const field = document.getElementById("forget");
      const lines = field.value.split("\n").filter((line) => line.trim());
      if (!lines.includes(button.dataset.add)) lines.push(button.dataset.add);
      field.value = lines.join("\n");
      say(button, "✓ added");
    }
  });

  document.addEventListener("change", async (event) => {
    const field = event.target;
    if (field.dataset.into && field.files.length) {
      document.getElementById(field.dataset.into).value = await field.files[0].text();
    }
    if (field.name === "kind") showKind();
  });

  const showKind = () => {
    const chosen = document.querySelector("#request input[name=kind]:checked");
    if (chosen) document.getElementById("request").className = `kind-${chosen.value}`;
  };
  showKind();

  // The connection of a live page: nothing is said as long as all is well.
  const connection = document.getElementById("connection");
  const tell = (text) => {
    if (!connection) return;
    connection.textContent = text;
    connection.hidden = !text;
  };
  const LOST = "! The coordinator cannot be reached. What you see is from before; it goes on by itself.";
  const GONE = "! This dashboard does not answer. What you see is from before; it goes on by itself.";
  const ENDED = "! You are not signed in any more. Load the page to sign in again.";
  let ended = false;
  document.addEventListener("lost", () => tell(LOST));
  document.addEventListener("ended", () => { ended = true; tell(ENDED); });
  document.addEventListener("htmx:sse:after:message", (event) => {
    if (!event.detail.message.event) tell("");
  });
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) ended = true;
    tell(ended ? ENDED : GONE);
  });
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (ended) event.preventDefault();
  });
})();
