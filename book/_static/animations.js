/* Plays each animation while at least half of it is in view. One that the reader has stopped by
   hand stays stopped, and for readers who ask for less motion none is ever started: everybody has
   the controls, and those who get nothing else have the still. On paper the still stands alone. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const inView = new Set();
  const stopped = new Set();
  const videos = [...document.querySelectorAll(".bd-article video[loop]")];

  // A promise is refused where the browser will not play; the reader still can.
  const start = (video) => video.play().catch(() => {});

  const settle = (video) => {
    if (!inView.has(video)) {
      video.pause();
    } else if (!calm.matches && !document.hidden && !stopped.has(video)) {
      start(video);
    }
  };

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.intersectionRatio >= 0.5) inView.add(entry.target);
        else inView.delete(entry.target);
        settle(entry.target);
      }
    },
    { threshold: 0.5 },
  );

  for (const video of videos) {
    // What stops in view was stopped by the reader; but not where nothing should be playing.
    video.addEventListener("pause", () => {
      if (inView.has(video) && !document.hidden && !calm.matches) stopped.add(video);
    });
    video.addEventListener("play", () => stopped.delete(video));
    // For the style sheet, which makes room for the controls below a still.
    video.style.setProperty("--full-width", `${video.width}px`);
    video.style.setProperty("--height-to-width", video.height / video.width);
    const still = video.querySelector("img");
    if (still) {
      still.classList.add("still-for-print");
      video.after(still);
    }
    observer.observe(video);
  }

  document.addEventListener("visibilitychange", () => videos.forEach(settle));
  calm.addEventListener("change", () => {
    if (calm.matches) videos.forEach((video) => video.pause());
    else videos.forEach(settle);
  });
});
