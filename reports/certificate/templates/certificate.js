// The certificate: nothing but the theme.

startTheme(document.getElementById("theme"));
for (const part of document.querySelectorAll(".live")) part.hidden = false;
