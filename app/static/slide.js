// Says beside a slider where it stands.
for (const slider of document.querySelectorAll("input.slide")) {
  const output = slider.form.querySelector("output");
  slider.addEventListener("input", () => { output.value = slider.value; });
}
