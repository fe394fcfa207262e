const rows = Array.from(document.querySelectorAll('#queries>tbody'));  // one per query
const texts = rows.map(row => row.textContent.toLowerCase());
const box = document.getElementById('search'), count = document.getElementById('found');
document.getElementById('searching').hidden = false;
function find() {
  rows.forEach((row, place) => { row.hidden = !texts[place].includes(box.value.toLowerCase()); });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' queries';
}
box.value = decodeURIComponent(location.hash.split('search=')[1] || '');  // a link to a search
box.addEventListener('input', find);
find();
