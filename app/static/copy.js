// Shows the buttons that copy a text, and says when one did. Without this script there are none.
const said = document.body.appendChild(document.createElement("div"));
said.className = "visually-hidden";
said.role = "status";
for (const button of document.querySelectorAll("button[data-copy]")) {
  const label = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    // The clipboard is closed to pages that did not come over https or from this machine.
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(button.dataset.copy);
    } else {
      const area = Object.assign(document.createElement("textarea"), { value: button.dataset.copy });
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = said.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = label; said.textContent = ""; }, 2000);
  });
}
