// Says so where a page shows what is old, because what htmx asked for did not come. The next answer takes the notice away.
"use strict";
(() => {
  let answeredAt = new Date();

  function show(text) {
    const notice = document.getElementById("notice");
    // A screen reader says it once, not at every attempt.
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = text === "";
  }

  function failed(reason) {
    show(`${reason}. This page shows the answer of ${answeredAt.toISOString().slice(0, 19).replace("T", " ")} UTC.`);
  }

  // Of an error page: what it says.
  function reasonOf(answer) {
    const page = new DOMParser().parseFromString(answer.responseText, "text/html");
    const said = page.querySelector("main [role=alert]:not([hidden])");
    return said === null ? `The collector answered with status ${answer.status}` : said.textContent.replace(/\.$/, "");
  }

  document.addEventListener("htmx:sendError", () => failed("The collector does not answer"));
  document.addEventListener("htmx:timeout", () => failed("The collector does not answer in time"));
  document.addEventListener("htmx:responseError", (event) => failed(reasonOf(event.detail.xhr)));
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.detail.successful) return;
    answeredAt = new Date();
    show("");
  });
})();
